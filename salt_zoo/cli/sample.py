"""`salt-zoo sample`: a prompt to a video file."""

from __future__ import annotations

import argparse
from pathlib import Path

from salt_zoo.plugins import Zoo

NAME = "sample"
HELP = "generate videos for prompts with a trained student, or with a backbone's teacher"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="+", help="one or more prompts")
    parser.add_argument("--out", type=Path, required=True, help=".mp4, .gif or .png (a strip)")


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    raise SystemExit(2)
