"""A run from its configuration: one method on one backbone, trained, evaluated and saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from salt_zoo import run_yaml
from salt_zoo.config import Steps, StrictModel, once, validate
from salt_zoo.foreign import ForeignError, show_traceback
from salt_zoo.one_writer import one_writer
from salt_zoo.plugins import Zoo
from salt_zoo.printing import say
from salt_zoo.registry import NAME, Registry
from salt_zoo.storage import check_folder, plain, prepare_folder
from salt_zoo.training.config import TrainingConfig


def named(part: Any) -> Any:
    """A part that is written as its name alone, as a group of keys."""
    if isinstance(part, str):
        part = {"name": part}
    if not isinstance(part, dict) or not isinstance(part.get("name"), str):
        raise ValueError("must be a name, or a group of keys with a 'name'")
    return part


#: A part by name and its options beside it: `{name: dmd, guidance_scale: 4}`, or its name alone.
Part = Annotated[dict[str, Any], BeforeValidator(named)]


@dataclass(frozen=True)
class ChosenMetric:
    """A registered metric, its options, and by what a report calls it."""

    label: str
    name: str
    options: dict[str, Any]

    @property
    def summary(self) -> str:
        """The options that it was given, in words, as in `gap 2`; empty without any."""
        return ", ".join(f"{key} {value}" for key, value in self.options.items())


def chosen(metric: str | Mapping[str, Any]) -> ChosenMetric:
    """A metric as it is written in a file: its name, or its name with options and a label."""
    if isinstance(metric, str):
        return ChosenMetric(metric, metric, {})
    options = {key: value for key, value in metric.items() if key not in ("name", "label")}
    return ChosenMetric(metric.get("label", metric["name"]), metric["name"], options)


def _metric(metric: Any) -> Any:
    """Its name alone where there is nothing else to say."""
    if isinstance(metric, str):
        return metric
    part = named(metric)
    label = part.get("label", part["name"])
    if not isinstance(label, str) or not NAME.fullmatch(label):
        raise ValueError("the label must be lower-case words joined by hyphens")
    return part if part.keys() != {"name"} else part["name"]


def _by_label(metrics: list[Any]) -> list[Any]:
    labels = [chosen(metric).label for metric in metrics]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"{label!r} stands there twice; give one of them a label of its own")
    return metrics


#: Metrics, each by its name or as `{name: motion-magnitude, gap: 2, label: motion-gap-2}`.
Metrics = Annotated[
    list[Annotated[str | dict[str, Any], BeforeValidator(_metric)]], AfterValidator(_by_label)
]


class QualityConfig(StrictModel):
    """Quality metrics during training: a loss alone says nothing."""

    #: Student updates between two measurements; 0 measures nothing.
    every: Annotated[int, Field(ge=0)] = 0
    prompts: Annotated[int, Field(ge=2, le=10**6)] = 64
    steps: Annotated[list[Steps], Field(min_length=1), AfterValidator(once)] = Field(
        default_factory=lambda: [4]
    )
    metrics: Metrics = Field(default_factory=list)
    sampler: Literal["sde", "ode"] = "sde"
    guidance_scale: float = 1.0

    @model_validator(mode="after")
    def _measures_something(self) -> QualityConfig:
        if self.every and not self.metrics:
            raise ValueError("metrics: name at least one, or write every: 0")
        return self


class RunConfig(StrictModel):
    """What `salt-zoo train` reads from a YAML file."""

    seed: int = 0
    method: Part
    backbone: Part
    dataset: Part
    training: TrainingConfig = TrainingConfig()
    quality: QualityConfig = QualityConfig()


@dataclass(frozen=True)
class Resolved:
    """A configuration with every name found and every default filled in."""

    config: RunConfig
    method: BaseModel
    backbone: BaseModel
    dataset: BaseModel

    def with_seed(self, seed: int) -> Resolved:
        """The same run with another seed."""
        return replace(self, config=self.config.model_copy(update={"seed": seed}))

    def plain(self) -> dict[str, Any]:
        """As the user would write it; what a run's digest is taken of."""
        content = self.config.model_dump(mode="json")
        for kind in ("method", "backbone", "dataset"):
            name = getattr(self.config, kind)["name"]
            content[kind] = {"name": name, **getattr(self, kind).model_dump(mode="json")}
        return content


def resolve(content: Mapping[str, Any], zoo: Zoo, where: str) -> Resolved:
    """Check a run's configuration against the registered parts.

    Raises:
        ZooError: an unknown key or name, or a wrong value; it says where and what would be right.
    """
    config = validate(RunConfig, content, where)
    configure_metrics(zoo, config.quality.metrics, f"{where}: quality.metrics")
    return Resolved(
        config,
        method=configure_part(zoo.methods, config.method, zoo, f"{where}: method"),
        backbone=configure_part(zoo.backbones, config.backbone, zoo, f"{where}: backbone"),
        dataset=configure_part(zoo.datasets, config.dataset, zoo, f"{where}: dataset"),
    )


def configure_part(registry: Registry, part: Part, zoo: Zoo, where: str) -> BaseModel:
    """The checked options of a part, every default filled in."""
    options = {key: value for key, value in part.items() if key != "name"}
    model = registry.configure(part["name"], options, where)
    # a part made of other parts fills in their options, too
    complete = getattr(registry[part["name"]].load(), "complete", None)
    return complete(model, zoo, where) if complete else model


def configure_metrics(
    zoo: Zoo, metrics: Sequence[str | Mapping[str, Any]], where: str = "metrics"
) -> dict[str, tuple[ChosenMetric, BaseModel]]:
    """By label each metric with its checked options, every default filled in.

    Raises:
        ZooError: an unknown name or option, or a wrong value.
    """
    found = {}
    for place, metric in enumerate(map(chosen, metrics)):
        at = f"{where}.{place}"
        found[metric.label] = metric, zoo.metrics.configure(metric.name, metric.options, at)
    return found


def make_metrics(zoo: Zoo, metrics: Sequence[str | Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics by label."""
    from salt_zoo.metrics import make_metric

    return {
        label: make_metric(metric.name, options, zoo)
        for label, (metric, options) in configure_metrics(zoo, metrics).items()
    }


def train(
    resolved: Resolved,
    folder: Path,
    zoo: Zoo,
    device: str = "auto",
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> Any:
    """Train (or go on training) in `folder` and return the `Trainer`, its networks trained.

    The folder gets `run.yaml`, the resolved configuration, before the networks are made.

    Raises:
        ZooError: another process writes there, or the folder holds another run.
    """
    from salt_zoo.devices import end_trackers, make_accelerator, start_trackers
    from salt_zoo.origin import make_parts  # torch takes seconds to import
    from salt_zoo.together import on_main
    from salt_zoo.training.resuming import find_checkpoint
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
                "processes": accelerator.num_processes,
            }
        )
        same = identity_on(resolved.plain(), config.training, accelerator)
        kept, warnings = on_main(lambda: find_checkpoint(folder, same, origin, config.training))
        for line in warnings if accelerator.is_main_process else ():
            say(f"warning: {line}")
        with ExitStack() as begun:
            on_main(lambda: begun.enter_context(run_yaml.written(resolved.plain(), folder)))
            trainer = Trainer(
                method=parts.method,
                backbone=parts.backbone,
                dataset=parts.dataset,
                config=config.training,
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
        on_main(lambda: prepare_folder(folder))  # not before all else is right
        if kept is None or kept.step < config.training.updates:
            start_trackers(accelerator, config.training, kept.step if kept else 0)
        try:
            trainer.run()
        finally:
            end_trackers(accelerator)
    return trainer


def _quality(config: QualityConfig, zoo: Zoo, backbone: Any, dataset: Any) -> Any:
    """What the trainer calls to measure quality on the validation split, or None."""
    if not config.every:
        return None
    from salt_zoo.evaluation import evaluation_draws, evaluation_prompts, make_videos, measure
    from salt_zoo.sampling import SamplingConfig

    metrics = make_metrics(zoo, config.metrics)
    prompts = evaluation_prompts(dataset, "validation", config.prompts)
    draws = evaluation_draws(0, "validation", len(prompts), backbone.device)

    def evaluate(networks: Any, step: int) -> dict[str, float]:
        found = {}
        for steps in config.steps:
            sampling = SamplingConfig(
                steps=steps, sampler=config.sampler, guidance_scale=config.guidance_scale
            )
            videos = make_videos(networks.result, backbone, dataset, prompts, draws, sampling)
            for name, metric in list(metrics.items()):
                try:
                    rows = measure({name: metric}, videos)[name]
                    found[f"{name}@{steps}"] = metric.reduce(rows)
                except ForeignError as error:  # the training itself goes well
                    show_traceback(error)
                    say(f"warning: {error}; it is not measured any more")
                    del metrics[name]
        return found

    return evaluate
