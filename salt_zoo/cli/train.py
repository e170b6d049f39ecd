"""`salt-zoo train`: one run from a YAML file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from salt_zoo.cli.arguments import add_set_option, folder
from salt_zoo.cli.plan import add_plan_options, check_plan_options, given_again, print_fit
from salt_zoo.config.overrides import apply_overrides
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.ranks import world_size
from salt_zoo.io.printing import noted_if_slow, say, show
from salt_zoo.io.yaml import read_yaml
from salt_zoo.plugin.manager import Zoo

if TYPE_CHECKING:
    from salt_zoo.config.run import RunConfig
    from salt_zoo.core.protocols import Split

NAME = "train"
HELP = "train one method on one backbone, resuming the run in --out if there is one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", type=Path, help="YAML file with method, backbone, dataset and training"
    )
    parser.epilog = "training.updates and all else that is counted there are student updates"
    parser.add_argument("--out", type=folder, help="run folder; needed unless --dry-run")
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N")
    add_set_option(parser, "training.updates=100")
    add_plan_options(parser)


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    from salt_zoo.config.field_types import types_of_run
    from salt_zoo.config.run import resolve
    from salt_zoo.planning.check import check_data, check_training
    from salt_zoo.training.devices import check_device, find_device
    from salt_zoo.training.state.layout import make_layout

    check_plan_options(options)
    if options.out is None and not options.dry_run:
        raise ZooError("--out: name the run folder, or add --dry-run")
    content = apply_overrides(read_yaml(options.config), options.overrides, types_of_run(zoo))
    resolved = resolve(content, zoo, str(options.config))
    config = resolved.config
    if not options.dry_run:
        find_device(options.device)  # before all that takes a while
    with noted_if_slow("checking the run with a dry run of its first update"):
        check_training(resolved, zoo, str(options.config))
    if options.dry_run:
        check_device(options.device)
        command = ["salt_zoo", "train", str(options.config), "--out", str(options.out or "RUN")]
        print_fit({"": resolved}, zoo, options, [*command, *given_again(options)])
        return 0
    kind = find_device(options.device).type
    make_layout(config.execution, config.training.batch_size, world_size(), 0, kind)
    measured: Split | None = "validation" if config.quality.every else None
    check_data(resolved, zoo, str(options.config), measured)
    from salt_zoo.cli.progress import training_progress
    from salt_zoo.io.files.one_writer import one_writer
    from salt_zoo.io.files.storage import check_folder
    from salt_zoo.training.launch import train
    from salt_zoo.training.students import save_student

    check_folder(options.out)
    with one_writer(options.out):
        _tell(config, options.out)
        with training_progress(config.method["name"]) as progress:
            trainer = train(resolved, options.out, zoo, options.device, progress)
        student = save_student(trainer, resolved, options.out / "student")
    if trainer.accelerator.is_main_process:
        show(student)
    return 0


def _tell(config: RunConfig, folder: Path) -> None:
    """What begins, and where its numbers go."""
    from salt_zoo.core.base.ranks import is_main_process

    if not is_main_process():
        return
    training = config.training
    logs = {
        "tensorboard": f"tensorboard --logdir {folder / 'logs'}",
        "wandb": "wandb, the project salt-zoo",
    }
    where = [logs[tracker] for tracker in training.trackers]
    say(
        f"note: training {config.method['name']} for {training.updates} student updates in "
        f"{folder}; logs: {' and '.join(where) or 'none (training.trackers)'}"
    )
