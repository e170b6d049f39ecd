"""`salt-zoo prepare`: what is computed once before many trainings."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from salt_zoo.cli.arguments import add_set_option, folder
from salt_zoo.config.field_types import run_types, types_of_part
from salt_zoo.config.overrides import apply_overrides
from salt_zoo.core.base.annotations import annotations_at
from salt_zoo.core.base.config import validate
from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.printing import show
from salt_zoo.io.yaml import read_yaml
from salt_zoo.plugin.manager import Zoo

NAME = "prepare"
HELP = "encode prompts (text) or videos (latents), solve ODEs (trajectories), or read LMDB, once"
KINDS = ("text", "latents", "trajectories")
#: Parts that are taken from a run's file, so that what is prepared fits it.
_FROM_RUN = ("backbone", "dataset")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=KINDS, help="what is prepared")
    parser.add_argument(
        "config", type=Path, nargs="?", help="the YAML file of a run, for its backbone and dataset"
    )
    parser.epilog = (
        "an interrupted preparation goes on with the same command; under torchrun (torchrun "
        "--nproc_per_node 8 -m salt_zoo prepare ...) all processes share the work"
    )
    parser.add_argument("--out", type=folder, required=True, help="output folder")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N")
    add_set_option(parser, "prompts=prompts.csv")


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    content = _parts_of(options.config) if options.config is not None else {}
    if options.kind == "trajectories":
        prepare, unit = _trajectories(options, content, zoo), "trajectories"
    else:
        prepare, unit = _encoded(options, content, zoo)
    from contextlib import ExitStack

    from salt_zoo.cli.progress import training_progress
    from salt_zoo.core.base.ranks import is_main_process
    from salt_zoo.io.distributed import on_main
    from salt_zoo.io.files.one_writer import one_writer
    from salt_zoo.io.files.storage import check_folder
    from salt_zoo.training.devices import device_of_process

    check_folder(options.out)
    device = device_of_process(options.device)
    with ExitStack() as held:
        on_main(lambda: held.enter_context(one_writer(options.out)))
        with training_progress(options.kind, unit) as progress:
            prepare(options.out, device, progress)
    if is_main_process():
        show(options.out)
    return 0


def _parts_of(config: Path) -> dict[str, Any]:
    """Backbone and dataset of a run's file."""
    content = read_yaml(config)
    if "backbone" not in content:
        raise ZooError(f"{config}: has no backbone; name the file of a run")
    return {key: content[key] for key in _FROM_RUN if key in content}


def _encoded(
    options: argparse.Namespace, content: dict[str, Any], zoo: Zoo
) -> tuple[Callable[[Path, Any, Any], object], str]:
    """What prepares text or latents, and what it counts."""
    from salt_zoo.preparation.latents import PrepareLatentsConfig, prepare_latents
    from salt_zoo.preparation.text import PrepareTextConfig, prepare_text

    where = f"prepare {options.kind}"
    model = PrepareTextConfig if options.kind == "text" else PrepareLatentsConfig
    sources = {"prompts"} if options.kind == "text" else {"videos", "lmdb"}

    def types(content: Mapping[str, Any], path: Sequence[int | str]) -> Sequence[Any]:
        if path[0] in _FROM_RUN:
            return run_types(zoo, content, path)
        return annotations_at(model, path)

    given = apply_overrides({}, options.overrides, types)
    if sources & given.keys() and "dataset" not in given:
        content = {key: content[key] for key in content if key != "dataset"}
    settings = apply_overrides(content, options.overrides, types)
    if options.kind == "text":
        text = validate(PrepareTextConfig, settings, where)
        return lambda out, device, told: prepare_text(text, zoo, out, device, told), "prompts"
    latents = validate(PrepareLatentsConfig, settings, where)
    return lambda out, device, told: prepare_latents(latents, zoo, out, device, told), "videos"


def _trajectories(
    options: argparse.Namespace, content: dict[str, Any], zoo: Zoo
) -> Callable[[Path, Any, Any], object]:
    """The recipe of that name, which a plugin brings."""
    types = types_of_part(zoo.recipes, options.kind)
    settings = apply_overrides(content, options.overrides, types)
    config = zoo.recipes.configure(options.kind, settings, f"prepare {options.kind}")
    recipe = zoo.recipes.create(options.kind, config, zoo)
    return lambda out, device, told: recipe.prepare(out, device, told)
