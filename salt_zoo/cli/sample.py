"""`salt-zoo sample`: a prompt to a video file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from salt_zoo.config import apply_overrides
from salt_zoo.errors import ZooError, did_you_mean
from salt_zoo.plugins import Zoo
from salt_zoo.printing import show
from salt_zoo.students import check_student

NAME = "sample"
HELP = "generate videos for prompts with a trained student, or with a backbone's teacher"

#: What a teacher is sampled with unless told otherwise.
TEACHER_STEPS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="one or more prompts")
    parser.add_argument("--out", type=Path, required=True, help=".mp4, .gif or .png (a strip)")
    parser.add_argument("--backbone", help="without --checkpoint: whose teacher to sample")
    parser.add_argument(
        "--nfe", type=int, help="steps (default: 4 for a student, 50 for a teacher)"
    )
    parser.add_argument(
        "--sampler", choices=("sde", "ode"), help="default: sde for a student, ode for a teacher"
    )
    parser.add_argument(
        "--guidance", type=float, help="default: 1 for a student, the size's own for a teacher"
    )
    add_common_arguments(parser)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """What all commands that generate have."""
    parser.add_argument("--checkpoint", type=Path, help="a student folder that 'train' has saved")
    parser.add_argument("--size", help="the backbone's size, for instance digits")
    parser.add_argument("--shift", type=float, default=5.0, help="timestep shift (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "tf32", "bf16"),
        default="auto",
        help="of the network's passes (default: auto, which is bf16 on CUDA and fp32 elsewhere)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="backbone.a.b=VALUE",
        dest="overrides",
        help="change the backbone's options",
    )


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    student = student_folder(options.checkpoint) if options.checkpoint else None
    content, where = backbone_content(options, student)
    if options.out.suffix.lower() not in (".mp4", ".gif", ".png"):
        raise ZooError(f"--out {options.out}: write a name that ends in .mp4, .gif or .png")

    from salt_zoo.devices import find_device  # torch takes seconds to import
    from salt_zoo.precision import with_precision
    from salt_zoo.run import configure_part
    from salt_zoo.sampling import SamplingConfig
    from salt_zoo.video_files import write_videos

    device = find_device(options.device)
    config = configure_part(zoo.backbones, content, zoo, where)
    backbone = zoo.backbones.create(content["name"], config, zoo).to(device)
    network = backbone.load(student) if student else backbone.network("teacher")
    with_precision(network, options.precision, device, frozen=True)
    sampling = sampling_config(options, student is not None, backbone, SamplingConfig)
    pixels = make(network, backbone, options.prompts, sampling, options.seed, device)
    write_videos(options.out, pixels, backbone.frame_rate)
    show(options.out)
    return 0


def student_folder(folder: Path) -> Path:
    """The folder with `salt_zoo.json`: `folder`, or the student in the folder of a run."""
    for place in (folder, folder / "student"):
        if (place / "salt_zoo.json").is_file():
            return check_student(place)
    if not folder.is_dir():
        raise ZooError(f"--checkpoint {folder}: there is no such folder")
    raise ZooError(
        f"--checkpoint {folder}: no student was saved there (it has no salt_zoo.json); "
        "'salt-zoo train' saves one in its --out folder when it ends"
    )


def backbone_content(
    options: argparse.Namespace, student: Path | None
) -> tuple[dict[str, Any], str]:
    """The backbone by name with its options beside it, as `--set` changes them, and where that is
    written."""
    content, where = written_backbone(options, student)
    return with_overrides(content, options.overrides), where


def written_backbone(
    options: argparse.Namespace, student: Path | None
) -> tuple[dict[str, Any], str]:
    """The backbone of the checkpoint, or of the options `--backbone` and `--size`."""
    where = "--backbone"
    if student:
        if options.backbone or options.size:
            raise ZooError("--backbone and --size are the checkpoint's own; leave them out")
        path = student / "salt_zoo.json"
        where = f"{path}: backbone"
        try:
            content = dict(json.loads(path.read_text(encoding="utf-8"))["run"]["backbone"])
            str(content["name"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ZooError(
                f"{path}: damaged ({type(error).__name__}: {' '.join(str(error).split())}); "
                "save the student again by running its 'salt-zoo train' command once more"
            ) from None
    elif options.backbone:
        content = {"name": options.backbone}
        if options.size:
            content["size"] = options.size
    else:
        raise ZooError(
            "what is to be sampled? Give --checkpoint DIR for a student, or for a teacher "
            "--backbone NAME --size NAME"
        )
    return content, where


def with_overrides(content: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The backbone as `--set backbone.a.b=VALUE` changes it."""
    changed = apply_overrides({"backbone": content}, overrides)
    for key in changed:
        if key != "backbone":
            raise ZooError(f"--set {key}: unknown key; {did_you_mean(key, ['backbone'])}")
    return changed["backbone"]


def sampling_config(
    options: argparse.Namespace, is_student: bool, backbone: Any, model: Any
) -> Any:
    """How to sample: what was asked for, and the usual where nothing was."""
    from salt_zoo.config import validate

    usual_guidance = 1.0 if is_student else backbone.guidance_scale
    content = {
        "steps": options.nfe,
        "sampler": options.sampler or ("sde" if is_student else "ode"),
        "timestep_shift": options.shift,
        "guidance_scale": usual_guidance if options.guidance is None else options.guidance,
    }
    if options.nfe is None:
        content["steps"] = 4 if is_student else TEACHER_STEPS
    return validate(model, content, "wrong option (--nfe, --sampler, --shift, --guidance)")


def make(
    network: Any, backbone: Any, prompts: list[str], sampling: Any, seed: int, device: Any
) -> Any:
    """Pixels `[N, C, F, H, W]`; the noise of a seed is that of every other model, too."""
    import torch

    from salt_zoo.draws import Draws
    from salt_zoo.sampling import generate

    draws = Draws(seed, ("sample",), range(len(prompts)), device)
    latents = generate(network.eval(), backbone, prompts, draws, sampling, batch_size=1)
    with torch.inference_mode():
        return backbone.decode_video(latents)
