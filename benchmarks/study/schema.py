"""What a study fixes, and its arms: the YAML files of `benchmarks/studies`, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.entries.arm_evaluation import ArmEvaluation
from benchmarks.study.entries.baselines import BASELINES, NAIVE_BASELINES
from benchmarks.study.entries.claims import among, by_index
from benchmarks.study.entries.config import (
    ArmSeeds,
    EvaluationConfig,
    Hypothesis,
    LongConfig,
    StudyConfig,
    TeacherConfig,
)
from benchmarks.study.entries.tuning import check_tuning
from salt_zoo.config.run import Resolved, resolve
from salt_zoo.core.base.config import validate
from salt_zoo.core.base.errors import ZooError, did_you_mean, shown
from salt_zoo.io.yaml import read_yaml
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import merge

__all__ = [
    "STUDIES",
    "EvaluationConfig",
    "Hypothesis",
    "LongConfig",
    "StudyConfig",
    "TeacherConfig",
    "check_baselines",
    "check_long",
    "find_study",
    "load_study",
    "read_study",
    "runs_of",
    "select_arms",
    "with_base",
    "with_hypotheses",
]

STUDIES = Path(__file__).parents[1] / "studies"


def find_study(name: str) -> Path:
    """The file of a study: a path, or the name of one in `benchmarks/studies`."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or _is_file(path):
        return path
    known = {p.stem: p for p in STUDIES.glob("*.yaml")}
    if name in known:
        return known[name]
    raise ZooError(f"unknown study {shown(name)}; {did_you_mean(name, known)}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long a name, a link to itself
        return False


def load_study(content: Mapping[str, Any], where: str) -> StudyConfig:
    """A checked study.

    Raises:
        ZooError: a wrong key or value, or a hypothesis about an arm that the study does not have.
    """
    study = validate(StudyConfig, content, where)
    for key in ("method", "seed"):
        if key in study.base:
            raise ZooError(f"{where}: base.{key}: belongs to the arms, not to what they share")
    for label, own in study.arms.items():
        if label.casefold() in BASELINES:
            raise ZooError(
                f"{where}: arms.{label}: the name belongs to a baseline; choose another label"
            )
        if "seed" in own:  # it would be the study's all the same
            raise ZooError(f"{where}: arms.{label}.seed: write seeds, a list, as in seeds: [3]")
        validate(ArmSeeds, {"seeds": own.get("seeds", study.seeds)}, f"{where}: arms.{label}")
        here = f"{where}: arms.{label}.evaluation"
        evaluation = validate(ArmEvaluation, own.get("evaluation", {}), here)
        for steps in evaluation.times:
            if steps not in {*study.evaluation.nfe, *_long_nfe(study)}:
                known = ", ".join(map(str, study.evaluation.nfe))
                raise ZooError(f"{here}.times: {steps} is not of evaluation.nfe: {known}")
    if study.match == "compute" and study.budget_of not in study.arms:
        hint = did_you_mean(str(study.budget_of), study.arms)
        raise ZooError(f"{where}: budget_of: must name the arm whose cost all arms get; {hint}")
    for index, hypothesis in enumerate(study.hypotheses):
        here = f"{where}: hypotheses.{index}"
        for label in (hypothesis.a, hypothesis.b):
            if label not in study.arms and label not in NAIVE_BASELINES:
                hint = did_you_mean(label, study.arms)
                raise ZooError(f"{here}: unknown arm {label!r}; {hint}")
        if hypothesis.a == hypothesis.b:
            raise ZooError(f"{here}: a and b are both {hypothesis.a!r}; compare two arms")
        _check_long(hypothesis, study.evaluation.long, here)
    check_tuning(study.tuning, study.arms, where)
    claims = by_index(study.claims, [h.name for h in study.hypotheses], where)
    return study.model_copy(update={"claims": claims})


def _long_nfe(study: StudyConfig) -> list[int]:
    return study.evaluation.long.nfe if study.evaluation.long else []


def _check_long(hypothesis: Hypothesis, long: LongConfig | None, where: str) -> None:
    """A hypothesis about long videos must be one that is measured."""
    if hypothesis.length is None and not hypothesis.slope:
        return
    if hypothesis.length is not None and hypothesis.slope:
        raise ZooError(f"{where}: give length or slope, not both")
    if long is None:
        raise ZooError(f"{where}: there are no long videos; see evaluation.long")
    if hypothesis.length is not None and hypothesis.length not in long.lengths:
        known = ", ".join(map(str, long.lengths))
        raise ZooError(
            f"{where}.length: {hypothesis.length} is not of evaluation.long.lengths: {known}"
        )
    if hypothesis.nfe not in long.nfe:
        known = ", ".join(map(str, long.nfe))
        raise ZooError(f"{where}.nfe: {hypothesis.nfe} is not of evaluation.long.nfe: {known}")


def read_study(name: str) -> tuple[dict[str, Any], Path]:
    path = find_study(name)
    return read_yaml(path), path


def select_arms(study: StudyConfig, methods: Sequence[str], where: str) -> StudyConfig:
    """The study with only the arms named in `methods` (all if it is empty): each is a label, or a
    method, which means all of its arms."""
    if not methods:
        return study

    def name_of(label: str) -> str:
        method = study.arms[label].get("method")
        name = method.get("name") if isinstance(method, Mapping) else method
        return name if isinstance(name, str) else ""  # what it is instead is said where it is read

    known = {*study.arms, *(name_of(label) for label in study.arms)}
    for wanted in methods:
        if wanted not in known:
            raise ZooError(
                f"--methods {wanted}: {where} has no such arm; {did_you_mean(wanted, known)}"
            )
    # a label means this arm alone, also where it is the name of a method, too
    by_method = {wanted for wanted in methods if wanted not in study.arms}
    kept = {k: v for k, v in study.arms.items() if k in methods or name_of(k) in by_method}
    arms = {*kept, *NAIVE_BASELINES}
    if study.match == "compute" and study.budget_of not in kept:
        raise ZooError(
            f"--methods: {where} gives all arms the budget of {study.budget_of!r}; name it, too, "
            "or add --set match=updates"
        )
    indices = [index for index, h in enumerate(study.hypotheses) if {h.a, h.b} <= arms]
    changes: dict[str, Any] = {"arms": kept}
    if study.tuning:
        settings = {k: v for k, v in study.tuning.settings.items() if k in kept}
        changes["tuning"] = study.tuning.model_copy(update={"settings": settings})
    return with_hypotheses(study.model_copy(update=changes), indices)


def with_hypotheses(study: StudyConfig, indices: Sequence[int]) -> StudyConfig:
    """The study with only the hypotheses at `indices`, and the claims that these decide."""
    hypotheses = [study.hypotheses[index] for index in indices]
    claims = among(study.claims, indices)
    return study.model_copy(update={"hypotheses": hypotheses, "claims": claims})


def with_base(base: Mapping[str, Any], arm: Mapping[str, Any]) -> dict[str, Any]:
    """What an arm trains: its keys over those that all arms share, of which `backbone: wan` is
    short for `{name: wan}`."""
    shared = {
        key: {"name": value} if isinstance(value, str) and isinstance(arm.get(key), dict) else value
        for key, value in base.items()
    }
    own = {key: value for key, value in arm.items() if key not in ("evaluation", "seeds")}
    return merge(shared, own)


def runs_of(study: StudyConfig, zoo: Zoo, where: str) -> dict[str, Resolved]:
    """The resolved run of every arm, at the first seed."""
    found = {}
    for label, own in study.arms.items():
        content = {**with_base(study.base, own), "seed": study.seeds_of(label)[0]}
        found[label] = resolve(content, zoo, f"{where}: arms.{label}")
    return found


def check_baselines(study: StudyConfig, runs: Mapping[str, Resolved], zoo: Zoo, where: str) -> None:
    """The initial student is a row of its own only where it is no copy of the teacher.

    Raises:
        ZooError: a hypothesis is about it, and no arm's backbone is autoregressive.
    """
    about = [n for n, h in enumerate(study.hypotheses) if "initial-naive" in (h.a, h.b)]
    if not about:
        return
    for run in runs.values():
        backbone = zoo.backbones.create(run.config.backbone["name"], run.backbone, zoo)
        if backbone.blocks().new_memory is not None:
            return
    raise ZooError(
        f"{where}: hypotheses.{about[0]}: there is no row 'initial-naive': no "
        "arm's backbone is autoregressive; compare with 'teacher-naive'"
    )


def check_long(runs: Mapping[str, Resolved], zoo: Zoo, where: str) -> None:
    """Only what is made block by block can be made longer.

    Raises:
        ZooError: an arm's students are bidirectional.
    """
    for label, run in runs.items():
        name = run.config.backbone["name"]
        if zoo.backbones.create(name, run.backbone, zoo).blocks().frames is None:
            raise ZooError(
                f"{where}: evaluation.long: arm {label!r} cannot make longer videos: its backbone "
                f"{name!r} is bidirectional; choose an autoregressive one"
            )
