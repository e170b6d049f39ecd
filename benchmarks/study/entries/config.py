"""The keys of a study's file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_serializer

from benchmarks.study.entries.arm_evaluation import ArmEvaluation
from benchmarks.study.entries.claims import Claim
from benchmarks.study.entries.names import Arms, Label, Text, Title
from benchmarks.study.entries.tuning import Tuning
from salt_zoo.config.metrics import Metrics
from salt_zoo.core.base.config import Steps, StrictModel, once
from salt_zoo.core.networks.blocks import Sampler

Positive = Annotated[int, Field(ge=1, le=10**6)]


#: Numbers of steps, or of training lengths, each once.
Numbers = Annotated[list[Steps], Field(min_length=1), AfterValidator(once)]
Samplers = Annotated[list[Sampler], Field(min_length=1), AfterValidator(once)]
Seeds = Annotated[list[int], Field(min_length=1, max_length=10_000), AfterValidator(once)]
EvalResult = Annotated[Metrics, Field(min_length=1)]
Prompts = Annotated[int, Field(ge=2, le=10**6)]
Videos = Annotated[int, Field(ge=1, le=10_000)]


class TeacherConfig(StrictModel):
    """How the baseline `teacher` is sampled."""

    steps: Steps = 50
    guidance_scale: float = 4.0


class LongConfig(StrictModel):
    """Videos longer than those of the training, for autoregressive backbones."""

    #: At the end of which lengths, in multiples of the training's, quality is compared. One rollout
    #: of the longest serves all.
    lengths: Numbers = [1, 4, 10]
    nfe: Numbers = [4]
    sampler: Sampler = "sde"
    #: The first of the evaluation's prompts, with its noise.
    prompts: Prompts = 64
    videos_per_prompt: Videos = 1
    #: null is the evaluation's. Those that need the whole video or make rollouts of their own are
    #: left out.
    metrics: EvalResult | None = None
    #: Videos of each arm that the report shows.
    shown: Positive = 2


class EvaluationConfig(StrictModel):
    """What every arm is measured on: the same prompts and noise for all."""

    split: Literal["validation", "test"] = "test"
    prompts: Prompts = 64
    videos_per_prompt: Videos = 1
    nfe: Numbers = [1, 2, 4, 8]
    samplers: Samplers = ["sde"]
    timestep_shift: Annotated[float, Field(gt=0)] = 5.0
    metrics: EvalResult
    teacher: TeacherConfig = TeacherConfig()
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 32
    #: Videos of each arm that the report shows.
    shown: Positive = 4
    long: LongConfig | None = None


class Hypothesis(StrictModel):
    """A comparison whose direction is stated before the runs: `a` is better than `b`.

    `length`: at the end of a video so many times as long as the training's; `slope`: in how the
    metric changes over such a video.
    """

    #: By which `claims` may refer to it.
    name: Title | None = None
    a: str
    b: str
    metric: str
    nfe: Steps
    sampler: Sampler = "sde"
    length: Steps | None = None
    slope: bool = False
    claim: Text = ""


class ArmSeeds(StrictModel):
    """The key `seeds` of an arm."""

    seeds: Seeds


class StudyConfig(StrictModel):
    """A grid of arms over seeds and NFEs."""

    name: Label
    title: Title
    description: Text = ""
    #: A run without `method` and `seed`: what all arms share.
    base: dict[str, Any]
    #: What each arm adds to the base; usually only its `method`. `evaluation` is an
    #: `ArmEvaluation`; `seeds` are training seeds of its own, not paired with the others'.
    arms: Arms
    seeds: Seeds = [0]
    #: `updates`: every arm trains as many updates as its configuration says. `compute`: as many as
    #: cost what the arm `budget_of` costs with its own.
    match: Literal["updates", "compute"] = "updates"
    budget_of: str | None = None
    evaluation: EvaluationConfig
    hypotheses: list[Hypothesis] = Field(default_factory=list)
    #: The metric of quality by which the report's first table is written; null is the first of
    #: `evaluation.metrics` that judges quality.
    primary_metric: str | None = None
    #: How many settings of each arm were tried before; null says that the study does not say.
    tuning: Tuning | None = None
    #: What a paper claims, each by the hypotheses that it stands or falls with.
    claims: list[Claim] = Field(default_factory=list)
    #: Processes that train arms side by side; 0 is one a core on a CPU and one on CUDA.
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    #: Whether the checkpoints of a training stay once it has ended and its student is saved.
    keep_checkpoints: bool = False

    def seeds_of(self, label: str) -> list[int]:
        """The training seeds of an arm."""
        if "seeds" not in self.arms[label]:
            return self.seeds
        return ArmSeeds.model_validate({"seeds": self.arms[label]["seeds"]}).seeds

    def arm_evaluation(self, label: str) -> ArmEvaluation:
        """How the students of an arm are sampled, where that is not the study's way."""
        return ArmEvaluation.model_validate(self.arms[label].get("evaluation", {}))

    @model_serializer(mode="wrap")
    def _stated(self, content: Any) -> dict[str, Any]:
        """Without what the file does not state."""
        free = ("claims", "primary_metric", "tuning")
        return {key: value for key, value in content(self).items() if key not in free or value}
