"""The configuration of a run: one method on one backbone and data set, trained and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from salt_zoo.config.execution import ExecutionConfig
from salt_zoo.config.metrics import Metrics, configure_metrics
from salt_zoo.config.parts import Part, configure_part
from salt_zoo.config.training import TrainingConfig
from salt_zoo.core.base.config import Steps, StrictModel, once, validate
from salt_zoo.plugin.manager import Zoo


class QualityConfig(StrictModel):
    """Quality metrics during training: a loss alone says nothing."""

    #: Student updates between two measurements; 0 measures nothing.
    every: Annotated[int, Field(ge=0)] = 0
    #: Different prompts of the validation split.
    prompts: Annotated[int, Field(ge=2, le=10**6)] = 64
    #: NFEs at which it is measured.
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
    #: A registered name, or its options beside it: `dmd`, or `{name: dmd, steps: 4}`.
    method: Part
    #: Likewise: `wan`, or `{name: wan, size: digits}`.
    backbone: Part
    #: Likewise: `digits`, or `{name: prompts, file: prompts.txt}`.
    dataset: Part
    training: TrainingConfig = TrainingConfig()
    quality: QualityConfig = QualityConfig()
    execution: ExecutionConfig = ExecutionConfig()


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
