"""Trains a resolved run in its folder: parts, lock, checkpoint, trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from salt_zoo.config import run_yaml
from salt_zoo.config.metrics import make_metrics
from salt_zoo.config.run import QualityConfig, Resolved
from salt_zoo.core.protocols import Backbone, Dataset
from salt_zoo.io.files.one_writer import one_writer
from salt_zoo.io.files.storage import check_folder, plain, prepare_folder
from salt_zoo.io.printing import say
from salt_zoo.plugin.isolation.foreign import ForeignError, show_traceback
from salt_zoo.plugin.manager import Zoo

if TYPE_CHECKING:
    from salt_zoo.training.state.networks import Networks
    from salt_zoo.training.trainer import Evaluate, Trainer


def train(
    resolved: Resolved,
    folder: Path,
    zoo: Zoo,
    device: str = "auto",
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> Trainer:
    """Train (or go on training) in `folder` and return the `Trainer`, its networks trained.

    The folder gets `run.yaml`, the resolved configuration, before the networks are made.

    Raises:
        ZooError: another process writes there, or the folder holds another run.
    """
    from salt_zoo.io.distributed import on_main
    from salt_zoo.training.checkpoints.resuming import find_checkpoint
    from salt_zoo.training.data.origin import make_parts  # torch takes seconds to import
    from salt_zoo.training.data.unprepared import unprepared
    from salt_zoo.training.devices import end_trackers, make_accelerator, start_trackers
    from salt_zoo.training.trainer import Trainer, identity_on

    config = resolved.config
    check_folder(folder)
    accelerator = make_accelerator(device, config.training, folder)
    parts = make_parts(resolved, zoo)
    parts.backbone.to(accelerator.device)
    with ExitStack() as held:
        on_main(lambda: held.enter_context(one_writer(folder)))
        origin = plain(
            {
                "inputs": on_main(parts.inputs),
                "code": parts.code,
                # into which a batch is split
                "processes": accelerator.num_processes // config.execution.sequence,
            }
        )
        same = identity_on(resolved.plain(), config.training, accelerator)
        kept, warnings = on_main(lambda: find_checkpoint(folder, same, origin, config.training))
        for line in warnings if accelerator.is_main_process else ():
            say(f"warning: {line}")
        if kept is not None and accelerator.is_main_process:
            done, updates = kept.step, config.training.updates
            goes = f"resuming after update {done} of {updates}"
            goes = goes if done < updates else f"all {updates} updates are done"
            say(f"note: {goes} ({kept.folder})")
        with ExitStack() as begun:
            on_main(lambda: begun.enter_context(run_yaml.written(resolved.plain(), folder)))
            trainer = Trainer(
                method=parts.method,
                backbone=parts.backbone,
                dataset=parts.dataset,
                config=config.training,
                execution=config.execution,
                seed=config.seed,
                folder=folder,
                accelerator=accelerator,
                resolved=resolved.plain(),
                hook=zoo.hook,
                origin=origin,
                kept=kept,
                evaluate=_quality(config.quality, zoo, parts.backbone, parts.dataset),
                evaluate_every=config.quality.every,
                progress=progress,
            )
        if accelerator.is_main_process:
            for role in trainer.never_trained():
                say(
                    f"warning: the role {role!r} has a learning rate and an optimizer, and none of "
                    f"{config.training.updates} updates trains it"
                )
        hint = unprepared(parts.method, parts.backbone, parts.dataset, config.training)
        if hint and accelerator.is_main_process:
            say(f"note: {hint}")
        on_main(lambda: prepare_folder(folder))  # not before all else is right
        if kept is None or kept.step < config.training.updates:
            start_trackers(accelerator, config.training, kept.step if kept else 0)
        try:
            trainer.run()
        finally:
            end_trackers(accelerator)
    return trainer


def _quality(
    config: QualityConfig, zoo: Zoo, backbone: Backbone, dataset: Dataset
) -> Evaluate | None:
    """What the trainer calls to measure quality on the validation split, or None."""
    if not config.every:
        return None
    from salt_zoo.evaluation.videos import (
        evaluation_draws,
        evaluation_prompts,
        make_videos,
        measure,
    )
    from salt_zoo.rollout.generate import SamplingConfig

    metrics = make_metrics(zoo, config.metrics)
    prompts = evaluation_prompts(dataset, "validation", config.prompts)
    rng = evaluation_draws(0, "validation", len(prompts), backbone.device)

    def evaluate(networks: Networks, step: int) -> dict[str, float]:
        found = {}
        for steps in config.steps:
            sampling = SamplingConfig(
                steps=steps, sampler=config.sampler, guidance_scale=config.guidance_scale
            )
            videos = make_videos(
                networks.eval_network,
                backbone,
                dataset,
                prompts,
                rng,
                sampling,
                split="validation",
            )
            for name, metric in list(metrics.items()):
                try:
                    rows = measure({name: metric}, videos)[name]
                    found[f"{name}@{steps}"] = metric.reduce(rows)
                except ForeignError as error:  # the training itself goes well
                    show_traceback(error)
                    say(f"warning: {error}; it is no longer measured")
                    del metrics[name]
        return found

    return evaluate
