"""Options of a training run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from salt_zoo.core.base.config import StrictModel, once
from salt_zoo.core.base.strict_numbers import LARGEST_RATE
from salt_zoo.core.networks.lora import LoraConfig
from salt_zoo.core.networks.precision import Precision

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=LARGEST_RATE)]
#: Of Adam: with 1 a moment would never move.
Beta = Annotated[float, Field(ge=0, lt=1)]


Tracker = Literal["tensorboard", "wandb"]


def _default_trackers() -> list[Tracker]:
    return ["tensorboard"]


class OptimizerConfig(StrictModel):
    """How one role is optimised. The defaults are those of the papers (Self Forcing, Salt)."""

    #: AdamW; `adamw8bit`, AdamW with 8-bit moments (torchao), 2 bytes a weight in place of 8;
    #: or Muon for the matrices inside the transformer blocks and AdamW for the rest.
    name: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    #: null is the method's own rate for the role.
    learning_rate: Rate | None = None
    betas: tuple[Beta, Beta] = (0.0, 0.999)
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.01
    #: Rate of Muon for the matrices inside the transformer blocks; AdamW takes the rest.
    matrix_learning_rate: Rate = 3e-3


class ScheduleConfig(StrictModel):
    """Factor on every learning rate: linear warm-up, constant, then a cosine down to `final`."""

    #: Student updates of the warm-up.
    warmup: Annotated[int, Field(ge=0)] = 0
    #: Share of the updates after which the cosine begins; 1 is a constant rate.
    decay_from: Fraction = 1.0
    #: Factor at the end of the cosine.
    final: Fraction = 0.1


class EMAConfig(StrictModel):
    """Exponential moving average of the student: what is evaluated and saved."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    #: Student updates after which averaging begins, from the weights of that moment; until then the
    #: EMA is a copy of the student, and in a training that is shorter it stays one. Self Forcing's
    #: 200 turns of its loop are 40 student updates.
    start: Annotated[int, Field(ge=0)] = 40


class TrainingConfig(StrictModel):
    """A training run. Whatever is counted in it is counted in student updates.

    Published code often counts turns of its loop instead: in Self Forcing's, and those that descend
    from it, the fake score is trained in every turn and the student in every fifth, so that 5 of
    their steps are one student update.
    """

    #: Student updates. The default is Self Forcing's training, 600 turns of its loop.
    updates: Annotated[int, Field(ge=1, le=10**9)] = 120
    #: Videos of an update, over all processes and passes.
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 64
    optimizers: dict[str, OptimizerConfig] = Field(default_factory=dict)
    #: Roles that are trained as LoRAs, by name: `{student: {rank: 64}, fake_score: {rank: 64}}`.
    #: They share their frozen weights with each other and with the teacher.
    lora: dict[str, LoraConfig] = Field(default_factory=dict)
    schedule: ScheduleConfig = ScheduleConfig()
    #: Norm to which the gradient of each trained network is clipped.
    clip: Annotated[float, Field(gt=0)] = 10.0
    ema: EMAConfig | None = EMAConfig()
    #: Of network passes (`salt_zoo.core.networks.precision`); `auto` is bf16 on CUDA, fp32
    #: elsewhere.
    precision: Precision = "auto"
    #: Student updates between two checkpoints; there is one at the end, too.
    checkpoint_every: Positive = 40
    #: Student updates between two lines of the log.
    log_every: Positive = 10
    trackers: Annotated[list[Tracker], AfterValidator(once)] = Field(
        default_factory=_default_trackers
    )
