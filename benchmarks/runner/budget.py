"""Equal budgets: how many updates of each arm cost what the arm of reference costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.runner.broken_arms import each_arm
from benchmarks.study.schema import StudyConfig
from salt_zoo.config.run import Resolved
from salt_zoo.core.base.interrupts import is_users
from salt_zoo.plugin.isolation.foreign import ForeignError
from salt_zoo.plugin.manager import Zoo

#: Numbers of updates that are tried for a budget; three usually do.
_TRIES = 20


def match_budget(
    study: StudyConfig, runs: Mapping[str, Resolved], zoo: Zoo
) -> tuple[dict[str, Resolved], dict[str, str]]:
    """The runs with their updates set to the study's budget, and by label why others have no
    cost: their code fails. On updates of their own they would be compared all the same, so they
    are not run.

    Raises:
        ForeignError: the arm whose cost all arms get has none.
    """
    if study.match == "updates":
        return dict(runs), {}
    from salt_zoo.planning.plan import flops_per_update

    assert study.budget_of is not None
    if study.budget_of not in runs:  # it could not be made, which was said
        raise ForeignError(f"budget_of: {study.budget_of!r} is broken, so no arm has a budget")
    reference = runs[study.budget_of]
    budget = reference.config.training.updates * flops_per_update(reference, zoo)
    return each_arm(runs, lambda run: _spend(run, budget, zoo))


def planned_flops(study: StudyConfig, runs: Mapping[str, Resolved], zoo: Zoo) -> dict[str, float]:
    """FLOPs of one whole training of each arm as planned, for comparison with what it recorded.

    Args:
        runs: with the updates that they train, those of `match_budget`.
    """
    from salt_zoo.planning.plan import flops_per_update

    return {
        label: run.config.training.updates * flops_per_update(run, zoo)
        for label, run in runs.items()
    }


def _spend(run: Resolved, budget: float, zoo: Zoo) -> Resolved:
    """The run with the updates that come nearest to a budget.

    What an update costs depends on how many there are: some terms start late, and rollouts end
    where the draws of the steps say.
    """
    from salt_zoo.planning.plan import flops_per_update

    spent: dict[int, float] = {}
    updates = run.config.training.updates
    while updates not in spent and len(spent) < _TRIES:
        cost = flops_per_update(_with_updates(run, updates), zoo)
        spent[updates] = updates * cost
        updates = max(1, round(budget / cost))
    return _with_updates(run, min(spent, key=lambda count: abs(spent[count] - budget)))


def _with_updates(run: Resolved, updates: int) -> Resolved:
    training = run.config.training.model_copy(update={"updates": updates})
    return replace(run, config=run.config.model_copy(update={"training": training}))


def budgets_of(study: StudyConfig, runs: Mapping[str, Resolved], zoo: Zoo) -> dict[str, float]:
    """FLOPs that one training of each arm should take: those of the arm whose cost all arms get,
    or where updates are matched its own. An arm whose method fails has none."""
    planned: dict[str, float] = {}
    for label, run in runs.items():
        try:
            planned |= planned_flops(study, {label: run}, zoo)
        except BaseException as error:  # a method's bug is told as the failure of its training
            if is_users(error):
                raise
            continue
    if study.match == "compute" and study.budget_of in planned:
        return dict.fromkeys(planned, planned[study.budget_of])
    return planned
