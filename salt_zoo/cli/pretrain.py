"""`salt-zoo pretrain`: make what distillation starts from (a teacher, a judge)."""

from __future__ import annotations

import argparse

from salt_zoo.cli.arguments import add_set_option, folder
from salt_zoo.config.field_types import types_of_part
from salt_zoo.config.overrides import apply_overrides
from salt_zoo.plugin.manager import Zoo

NAME = "pretrain"
HELP = "run a pretraining recipe, such as the digits teacher or judge"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a registered recipe; 'salt-zoo list' shows them")
    parser.add_argument("--out", type=folder, required=True, help="output folder")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N")
    add_set_option(parser, "run.training.updates=100")


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    types = types_of_part(zoo.recipes, options.recipe)
    settings = apply_overrides({}, options.overrides, types)
    config = zoo.recipes.configure(options.recipe, settings, f"recipe {options.recipe}")
    recipe = zoo.recipes.create(options.recipe, config, zoo)
    from salt_zoo.io.files.one_writer import one_writer

    with one_writer(options.out):
        return int(recipe.run(options.out, options.device) or 0)
