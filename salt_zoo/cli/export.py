"""`salt-zoo export`: a student, ours or another code's, in a form that other codes read."""

from __future__ import annotations

import argparse
from pathlib import Path

from salt_zoo.cli.chosen import choose, with_overrides
from salt_zoo.cli.outputs import out_path
from salt_zoo.core.errors import ZooError
from salt_zoo.core.protocols import Exportable
from salt_zoo.io.printing import show
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
        "(also for Causal Forcing, LongLive, Salt), self-forcing-ema or diffusers",
    )
    parser.add_argument(
        "--out",
        type=out_path,
        required=True,
        help=".safetensors for wan, .pt for self-forcing, a folder for diffusers",
    )
    parser.add_argument(
        "--backbone", help="backbone of another project's weights (default: detected)"
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
    source, out = chosen.place.resolve(), options.out.resolve()
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
    backbone.check_export(options.out, options.format)  # before the weights are read
    backbone.export(backbone.load(chosen.place), options.out, options.format)
    show(options.out)
    return 0
