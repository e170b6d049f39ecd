"""Equal budgets: how many updates of each arm cost what the arm of reference costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.study import StudyConfig
from salt_zoo.plugins import Zoo
from salt_zoo.run import Resolved


def match_budget(study: StudyConfig, runs: Mapping[str, Resolved], zoo: Zoo) -> dict[str, Resolved]:
    """The runs with their updates set to the study's budget."""
    if study.match == "updates":
        return dict(runs)
    from salt_zoo.planning import flops_per_update

    assert study.budget_of is not None
    costs = {label: flops_per_update(run, zoo) for label, run in runs.items()}
    updates = runs[study.budget_of].config.training.updates
    budget = updates * costs[study.budget_of]
    return {
        label: _with_updates(run, max(1, round(budget / costs[label])))
        for label, run in runs.items()
    }


def _with_updates(run: Resolved, updates: int) -> Resolved:
    training = run.config.training.model_copy(update={"updates": updates})
    return replace(run, config=run.config.model_copy(update={"training": training}))
