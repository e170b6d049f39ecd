"""`salt-zoo export`: a student, ours or another code's, in a form that other codes read."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from salt_zoo.cli.chosen import Chosen, choose, with_overrides
from salt_zoo.cli.outputs import out_path
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.protocols import Exportable, ExportsLora
from salt_zoo.io.printing import say, show
from salt_zoo.plugin.manager import Zoo

NAME = "export"
HELP = "convert a student, ours or another project's, to a format that other projects read"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR_OR_FILE",
        help="student folder saved by 'train', or another project's weights: a file, an index of "
        "shards, or a folder in diffusers' or Wan's layout",
    )
    parser.add_argument(
        "--format",
        required=True,
        help="a format of the student's backbone; for Wan: wan (original names), self-forcing "
        "(also for Causal Forcing, LongLive, Salt), self-forcing-ema or diffusers; as a LoRA: lora "
        "(diffusers), lora-comfyui or lora-kohya",
    )
    parser.add_argument(
        "--out",
        type=out_path,
        required=True,
        help=".safetensors for wan and LoRAs, .pt for self-forcing, a folder for diffusers",
    )
    parser.add_argument(
        "--backbone", help="backbone of another project's weights (default: detected)"
    )
    parser.add_argument(
        "--rank",
        type=int,
        help="extract a LoRA of this rank from a student that was trained in full: the SVD of the "
        "difference to its first weights; prints the relative error",
    )
    parser.add_argument(
        "--base",
        type=Path,
        metavar="DIR_OR_FILE",
        help="with --rank: the weights to which the LoRA is added (default: those with which a "
        "student of ours began)",
    )
    parser.add_argument("--size", help="size of another project's weights (default: detected)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="backbone.a.b=VALUE",
        dest="overrides",
        help="override an option of the backbone",
    )


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    given = options.checkpoint
    chosen = choose(options, zoo, "export", "saved")
    content = with_overrides(chosen.content, options.overrides, zoo)
    assert chosen.place is not None  # --checkpoint is required
    # `Path.resolve` raises an error of its own for a loop of links
    source, out = (Path(os.path.realpath(one)) for one in (chosen.place, options.out))
    if options.out.exists() and (out.is_relative_to(source) or source.is_relative_to(out)):
        raise ZooError(f"--out {options.out}: is a part of the checkpoint; choose another path")

    from salt_zoo.config.parts import configure_part  # torch takes seconds to import

    config = configure_part(zoo.backbones, content, zoo, chosen.where)
    backbone = zoo.backbones.create(content["name"], config, zoo)
    if not isinstance(backbone, Exportable):
        raise ZooError(
            f"--checkpoint {given}: its backbone {content['name']!r} has no other formats; the "
            "folder as it is can be used by 'salt-zoo sample'"
        )
    if isinstance(backbone, ExportsLora) and options.format in backbone.lora_formats:
        return _lora(options, backbone, chosen)
    for name in ("rank", "base"):
        if vars(options)[name] is not None:
            raise ZooError(f"--{name}: only for a LoRA; {options.format!r} is a whole model")
    backbone.check_export(options.out, options.format)  # before the weights are read
    backbone.export(backbone.load(chosen.place), options.out, options.format)
    show(options.out)
    return 0


def _lora(options: argparse.Namespace, backbone: Any, chosen: Chosen) -> int:
    """The LoRA of a student that was trained as one, or one that is extracted."""
    backbone.check_lora(options.out, options.format)
    ours = bool(chosen.where != "--checkpoint")
    if options.rank is None:
        if options.base is not None:
            raise ZooError("--base: goes with --rank, the rank of the LoRA to extract")
        if not ours:
            raise ZooError("--rank: needed to extract a LoRA from a whole model, such as --rank 64")
        backbone.export_lora(chosen.place, options.out, options.format)
    else:
        if options.rank < 1:
            raise ZooError(f"--rank {options.rank}: must be at least 1")
        if options.base is None and not ours:
            raise ZooError("--base: give the weights to which the LoRA is to be added")
        base = backbone.load(options.base) if options.base else backbone.network("student")
        network = backbone.load(chosen.place)
        errors = dict(
            backbone.extract_lora(network, base, options.rank, options.out, options.format)
        )
        overall = errors.pop("")
        worst = max(errors, key=lambda name: errors[name])
        say(
            f"relative error of the change: {overall:.4g} over all weights, {errors[worst]:.4g} in "
            f"the worst layer ({worst}); those of all layers are in the file's header"
        )
    show(options.out)
    return 0
