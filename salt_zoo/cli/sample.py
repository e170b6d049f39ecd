"""`salt-zoo sample`: prompts to video files."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salt_zoo.cli import first_image
from salt_zoo.cli.arguments import add_attention_option
from salt_zoo.cli.chosen import Chosen, choose, with_overrides
from salt_zoo.cli.outputs import Folder, Video, check_one_file, file_names, out_path, videos_of
from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo.io.files.storage import check_file, check_folder
from salt_zoo.io.printing import results, show
from salt_zoo.plugin.manager import Zoo

if TYPE_CHECKING:
    from torch import Tensor

    from salt_zoo.core.first_frame import FirstFrames
    from salt_zoo.core.networks.network import Condition

NAME = "sample"
HELP = "generate videos for prompts with a student, or with a backbone's teacher"

#: What a teacher is sampled with unless told otherwise, and a student that does not say.
TEACHER_STEPS, STUDENT_STEPS, SHIFT = 50, 4, 5.0
ENDINGS = (".mp4", ".gif", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="one or more prompts")
    parser.add_argument(
        "--prompts",
        type=Path,
        dest="prompt_file",
        metavar="FILE",
        help="file with one prompt per line, or a table: .csv, .tsv, .json, .jsonl, .parquet",
    )
    parser.add_argument("--column", help="column of the table (default: prompt, caption or text)")
    parser.add_argument(
        "--image-column",
        metavar="COLUMN",
        help="column of the table with each prompt's first frame, a path relative to the table's "
        "folder (default, for a size that generates from an image: image, image_path, image_name "
        "or first_frame)",
    )
    parser.add_argument(
        "--per-prompt", type=int, default=1, metavar="N", help="videos per prompt (default: 1)"
    )
    parser.add_argument(
        "--out",
        type=out_path,
        required=True,
        help="one .mp4, .gif or .png (a strip of frames) with all videos; with --prompts or "
        "--per-prompt, or if it ends in / or is an existing folder without such an ending: a "
        "folder, one file per video",
    )
    parser.add_argument(
        "--format", choices=("mp4", "gif", "png"), help="format of files in a folder (default: mp4)"
    )
    parser.add_argument(
        "--names",
        choices=("index", "vbench"),
        help="names of files in a folder: 00003-a-red-fox (default), or VBench's 'a red fox-0'",
    )
    parser.add_argument(
        "--backbone",
        help="backbone whose teacher is sampled without --checkpoint, or to which another "
        "project's weights belong",
    )
    parser.add_argument(
        "--nfe",
        type=int,
        help="number of steps (default: the student's own, else 4; 50 for a teacher)",
    )
    parser.add_argument(
        "--sampler",
        choices=("sde", "ode"),
        help="default: the student's own, else sde; ode for a teacher",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        help="guidance scale (default: 1 for a student, the size's own for a teacher)",
    )
    add_common_arguments(parser)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that generates video."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR_OR_FILE",
        help="student folder saved by 'train', or another project's weights: a file, an index of "
        "shards, or a folder in diffusers' or Wan's layout",
    )
    parser.add_argument("--size", help="size of the backbone, e.g. digits")
    first_image.add_argument(parser)
    parser.add_argument(
        "--shift", type=float, help="timestep shift (default: the student's own, else 5)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the noise, which also depends on the prompt, not on its position "
        "(default: 0)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "tf32", "bf16"),
        default="auto",
        help="precision of network passes (default: auto, bf16 on CUDA and fp32 elsewhere)",
    )
    add_attention_option(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="backbone.a.b=VALUE",
        dest="overrides",
        help="override an option of the backbone",
    )


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    chosen = choose(options, zoo, "sample", "teacher")
    content = with_overrides(chosen.content, options.overrides, zoo)
    check_prompt_options(options)
    prompts = read_prompts(options)
    videos = videos_of(prompts, options.per_prompt)
    files = outputs(options, videos)

    from salt_zoo.cli.progress import told_bar
    from salt_zoo.config.parts import configure_part
    from salt_zoo.core.methods.attention import attention_use, check_attention, choose_attention
    from salt_zoo.core.networks.precision import with_precision
    from salt_zoo.io.videos.video import check_size
    from salt_zoo.training.devices import find_device  # torch takes seconds to import

    device = find_device(options.device)
    config = configure_part(zoo.backbones, content, zoo, chosen.where)
    backbone = zoo.backbones.create(content["name"], config, zoo).to(device)
    sampling = sampling_config(options, chosen, chosen.place is not None, backbone)
    own = own_images(options, backbone.image_shape is not None)
    images = first_image.first_frames(options, backbone, content.get("size"), own)
    size = backbone.frame_size
    if size:
        check_size(options.out if files is None else files[0], _together(files, videos), *size)
    use = attention_use(options.precision, device, backward=False)
    attention = options.attention, f"--attention {options.attention}", use
    check_attention(backbone, *attention)
    network = backbone.load(chosen.place) if chosen.place else backbone.network("teacher")
    with_precision(network, options.precision, device, frozen=True)
    choose_attention(network, *attention)
    network.eval()
    for prompt in dict.fromkeys(video.prompt for video in videos):
        backbone.encode_prompts([prompt])  # one that is not understood is told before the work
    made = make(network, backbone, videos, sampling, options.seed, device, images)
    # the files that a terminal shows are progress enough, and a bar would stand among them
    quiet = files is not None and results().isatty()
    with nullcontext() if quiet else told_bar("sample", "videos") as told:
        if told:
            made = counted(made, len(videos), told)
        write(made, options.out, files, len(videos), backbone.frame_rate)
    return 0


def check_prompt_options(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""
    if options.prompts and options.prompt_file:
        raise ZooError("--prompts: cannot be combined with prompts on the command line")
    if options.per_prompt < 1:
        raise ZooError(f"--per-prompt {options.per_prompt}: must be at least 1")
    if options.image is not None and options.image_column is not None:
        raise ZooError("--image-column: cannot be combined with --image, which is of all prompts")
    if options.prompt_file is None:
        for flag, value in (("column", options.column), ("image-column", options.image_column)):
            if value is not None:
                raise ZooError(f"--{flag}: needs --prompts FILE")
        if not options.prompts:
            raise ZooError("no prompt; give one or more, or --prompts FILE")


def read_prompts(options: argparse.Namespace) -> list[str]:
    """The prompts of the command line or of `--prompts`."""
    if options.prompt_file is None:
        return list(options.prompts)
    from salt_zoo.io.prompt_files import read_prompt_file

    try:
        return read_prompt_file(options.prompt_file, options.column)
    except ZooError as error:
        raise ZooError(f"--prompts {error}") from None


def own_images(options: argparse.Namespace, are_needed: bool) -> list[Path]:
    """The first frame of each prompt of `--prompts`; empty where `--image` is that of all."""
    wanted = are_needed and options.prompt_file is not None and options.image is None
    if not wanted and options.image_column is None:
        return []
    from salt_zoo.io.prompt_files import read_prompts_and_images

    try:
        rows = read_prompts_and_images(options.prompt_file, options.column, options.image_column)
    except ZooError as error:
        raise ZooError(f"--prompts {error}") from None
    return [image for _, image in rows]


def outputs(options: argparse.Namespace, videos: Sequence[Video]) -> list[Path] | None:
    """A file for each video in the folder `--out`; None where all go into one file.

    Raises:
        ZooError: it could not be written, or options contradict it.
    """
    out: Path = options.out
    one = out.suffix.lower() in ENDINGS and not isinstance(out, Folder)
    if one and out.is_dir():
        raise ZooError(
            f"--out {out}: is a folder; name a file, or write {out}/ for a file per video in it"
        )
    folder = isinstance(out, Folder) or out.is_dir()
    many = options.prompt_file is not None or options.per_prompt > 1
    if one:
        for name in ("format", "names"):
            if getattr(options, name) is not None:
                raise ZooError(f"--{name}: is of files in a folder, and --out {out} is one file")
        check_one_file(out, len(videos))
        check_file(out)
        return None
    if not (many or folder or options.names or options.format):
        raise ZooError(f"--out {out}: use a name that ends in .mp4, .gif or .png, or FOLDER/")
    names = file_names(videos, options.names or "index", f".{options.format or 'mp4'}")
    check_folder(out)
    return [out / name for name in names]


def _together(files: Sequence[Path] | None, videos: Sequence[Video]) -> int:
    return len(videos) if files is None else 1


def sampling_config(
    options: argparse.Namespace, chosen: Chosen, is_student: bool, backbone: Any
) -> Any:
    """How to sample: what was asked for, else what the student says, else the usual."""
    from salt_zoo.core.base.config import validate
    from salt_zoo.rollout.generate import SamplingConfig

    usual = {
        "steps": STUDENT_STEPS if is_student else TEACHER_STEPS,
        "sampler": "sde" if is_student else "ode",
        "timestep_shift": SHIFT,
        "guidance_scale": 1.0 if is_student else backbone.guidance_scale,
    }
    own = validate(SamplingConfig, usual | chosen.remembered, f"{chosen.where}, sampling")
    asked = {
        "steps": ("--nfe", options.nfe),
        "sampler": ("--sampler", options.sampler),
        "timestep_shift": ("--shift", options.shift),
        "guidance_scale": ("--guidance", options.guidance),
    }
    given = {key: value for key, (_, value) in asked.items() if value is not None}
    for key in given:  # each by itself, so that the line names the option
        flag, value = asked[key]
        validate(SamplingConfig, usual | {key: value}, f"{flag} {value}")
    return validate(SamplingConfig, own.model_dump() | given, "--nfe")


def make(
    network: Any,
    backbone: Any,
    videos: Sequence[Video],
    sampling: Any,
    seed: int,
    device: Any,
    images: FirstFrames | None,
) -> Iterator[Tensor]:
    """Pixels `[1, C, F, H, W]` of each video; the noise of a seed is that of other models, too.

    Raises:
        ZooError: a video is not finite; the line names its prompt.
    """
    import torch

    from salt_zoo.io.videos.video import check_finite
    from salt_zoo.rollout.generate import generate, prompt_draws

    for video in videos:
        rng = prompt_draws(seed, video.prompt, [video.occurrence], device)
        own = images and functools.partial(_of_place, images, video.place)
        latents = generate(network, backbone, [video.prompt], rng, sampling, first_frames=own)
        with torch.inference_mode():
            pixels = backbone.decode_video(latents)
        check_finite(pixels, f"prompt {shown(video.prompt)}")
        yield pixels


def _of_place(images: FirstFrames, place: int, _: range) -> Condition:
    """The first frame of one prompt of the list, for a video that is generated alone."""
    return images(range(place, place + 1))


def counted(
    made: Iterator[Tensor], count: int, told: Callable[[int, int], None]
) -> Iterator[Tensor]:
    """The videos as they are; `told` hears of each that has been written."""
    told(0, count)
    for done, pixels in enumerate(made, 1):
        yield pixels
        told(done, count)


def write(
    made: Iterator[Tensor], out: Path, files: list[Path] | None, count: int, frame_rate: float
) -> None:
    """Write each video to its file as it is made, or all of them to `out`."""
    import torch

    from salt_zoo.io.files.storage import prepare_folder
    from salt_zoo.io.videos.video import check_size, write_videos

    if files is not None:
        prepare_folder(out)
        for path, pixels in zip(files, made, strict=True):
            write_videos(path, pixels, frame_rate)
            show(path)
        return
    videos: list[Tensor] = []
    for pixels in made:
        check_size(out, count, *pixels.shape[3:])  # before the others are made
        videos.append(pixels.cpu())
    write_videos(out, torch.cat(videos), frame_rate)
    show(out)
