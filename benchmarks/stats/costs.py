"""The costs and histories of a study's trainings, as results.json holds them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.evaluate.records import EvalResult, TrainingCost
from benchmarks.stats.comparisons import finite
from benchmarks.stats.model.schema import ArmCost, FailedTraining, Passes, TrainingCurve

#: How far the recorded cost of an arm may be from its budget before the run and the page warn of
#: it, as a share of the budget.
OFF_BUDGET = 0.02
#: Points of a training curve that are kept, beside those with quality metrics.
CURVE_POINTS = 100


def arm_costs(
    measured: Iterable[EvalResult], costs: Iterable[TrainingCost], budgets: Mapping[str, float]
) -> list[ArmCost]:
    """The cost of one training of each arm: the mean over the seeds that did not fail."""
    results = {result.arm: result for result in reversed(list(measured))}
    by_arm: dict[str, list[TrainingCost]] = {}
    for cost in costs:
        by_arm.setdefault(cost.arm, []).append(cost)
    return [_arm(arm, of_arm, results.get(arm), budgets) for arm, of_arm in by_arm.items()]


def _arm(
    arm: str,
    costs: Sequence[TrainingCost],
    result: EvalResult | None,
    budgets: Mapping[str, float],
) -> ArmCost:
    finished = [cost for cost in costs if cost.error is None]
    roles = sorted({role for cost in finished for role in cost.passes})
    flops, budget = _mean(cost.flops for cost in finished), budgets.get(arm)

    def passes(role: str, way: str) -> float:
        return _mean(cost.passes.get(role, {}).get(way, 0.0) for cost in finished) or 0.0

    return ArmCost(
        arm=arm,
        method=result.method if result else None,
        backbone=result.backbone if result else None,
        memory=result.memory if result else None,
        seeds=[cost.seed for cost in finished],
        updates=_mean(cost.updates for cost in finished),
        passes={
            role: Passes(forward=passes(role, "forward"), backward=passes(role, "backward"))
            for role in roles
        },
        flops=flops,
        budget=budget,
        off_budget=flops / budget - 1 if flops and budget else None,
        seconds=_mean(cost.seconds for cost in finished),
        errors=[
            FailedTraining(seed=cost.seed, updates=cost.updates, error=cost.error)
            for cost in costs
            if cost.error is not None
        ],
    )


def off_budget(costs: Iterable[ArmCost]) -> list[tuple[str, float]]:
    """The arms whose recorded cost is not what they were given, with by how much of the budget."""
    found = ((cost.arm, cost.off_budget) for cost in costs if cost.off_budget is not None)
    return [(arm, share) for arm, share in found if abs(share) > OFF_BUDGET]


def _mean(numbers: Iterable[float]) -> float | None:
    values = list(numbers)
    return sum(values) / len(values) if values else None


def training_curves(costs: Iterable[TrainingCost]) -> list[TrainingCurve]:
    return [
        TrainingCurve(
            arm=cost.arm,
            seed=cost.seed,
            points=[
                {str(key): finite(value) for key, value in point.items()}
                for point in _thin(cost.curve)
            ],
        )
        for cost in costs
        if cost.curve
    ]


def _thin(curve: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Evenly spaced points of a history, and all that measured quality."""
    every = max(1, math.ceil(len(curve) / CURVE_POINTS))
    return [
        point
        for index, point in enumerate(curve)
        if index % every == 0
        or index == len(curve) - 1
        or any(key.startswith("quality/") for key in point)
    ]
