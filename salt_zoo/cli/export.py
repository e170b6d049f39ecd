"""`salt-zoo export`: a student as one file that other codes read."""

from __future__ import annotations

import argparse
from pathlib import Path

from salt_zoo.cli.sample import backbone_content, student_folder
from salt_zoo.errors import ZooError
from salt_zoo.plugins import Zoo
from salt_zoo.printing import show

NAME = "export"
HELP = "write a trained student as one file in a format that other codes read"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR_OR_FILE",
        help="a student folder that 'train' has saved, or the salt_zoo.json in it",
    )
    parser.add_argument(
        "--format",
        required=True,
        help="as the student's backbone knows them; Wan: wan (plain names), self-forcing (also "
        "for Causal Forcing, LongLive, Salt) or self-forcing-ema",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help=".safetensors for wan, .pt for self-forcing"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="backbone.a.b=VALUE",
        dest="overrides",
        help="change the backbone's options",
    )
    parser.set_defaults(backbone=None, size=None)  # the checkpoint's own


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    given = options.checkpoint
    if given.is_file() and given.name != "salt_zoo.json":
        raise ZooError(f"--checkpoint {given}: is a file; give the student's folder")
    student = student_folder(given.parent if given.name == "salt_zoo.json" else given)
    if options.out.exists() and options.out.resolve().is_relative_to(student.resolve()):
        raise ZooError(f"--out {options.out}: is a part of the checkpoint; choose another place")
    content, where = backbone_content(options, student)

    from salt_zoo.run import configure_part  # torch takes seconds to import

    config = configure_part(zoo.backbones, content, zoo, where)
    backbone = zoo.backbones.create(content["name"], config, zoo)
    export = getattr(backbone, "export", None)
    if export is None:
        raise ZooError(
            f"--checkpoint {given}: its backbone {content['name']!r} has no other formats; the "
            "folder as it is can be used by 'salt-zoo sample'"
        )
    check = getattr(backbone, "check_export", None)
    if check is not None:  # before the weights are read
        check(options.out, options.format)
    export(backbone.load(student), options.out, options.format)
    show(options.out)
    return 0
