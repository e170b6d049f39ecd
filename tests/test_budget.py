"""Budgets: what is planned is what runs, for every method on every way to remember."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.runner.budget import match_budget, planned_flops
from benchmarks.study.schema import load_study, runs_of
from salt_zoo.config.run import resolve
from salt_zoo.planning.dry_runs import counted_passes
from salt_zoo.planning.plan import flops_per_update
from salt_zoo.training.launch import train
from tests.test_matrix import OPTIONS, SMALL, ZOO

MEMORIES = {
    "full": {"name": "full"},
    "window": {"name": "window", **SMALL["window"]},
    "block-relative": {"name": "block-relative", **SMALL["block-relative"]},
}
UPDATES = 2
#: Memories whose trainings torch counts as they happen, which takes long.
LOOKED_AT = (None, "window")


def backbone(memory):
    part = {"size": "test-small"}
    if memory is None:
        return {"name": "wan", **part}
    return {"name": "self-forcing", **part, "memory": MEMORIES[memory]}


def content(method, memory, **training):
    return {
        "method": {"name": method, **OPTIONS.get(method, {})},
        "backbone": backbone(memory),
        "dataset": "digits",
        "training": {"updates": UPDATES, "batch_size": 1, "trackers": [], **training},
    }


METHODS = (
    "teacher-forcing",
    "diffusion-forcing",
    "ode-regression",
    "consistency",
    "dmd",
    "sc-dmd",
    "cda",
)
#: Of the other memories, methods with each kind of pass: masked (in turn where no mask says it),
#: and rollouts. That of all methods and memories as many passes are planned as run is seen in
#: tests/test_matrix.py.
OTHERS = ("teacher-forcing", "diffusion-forcing", "consistency", "cda")
CELLS = [
    *((method, None) for method in METHODS if method != "cda"),  # it needs a memory
    *((method, "window") for method in METHODS),
    *((method, memory) for memory in ("full", "block-relative") for method in OTHERS),
    ("dmd", "full"),  # its fake score's rollouts, too, without a window and without CDA's reference
]


class Counter(TorchDispatchMode):
    """FLOPs of what is computed, by torch's formulas; its own counter follows every module, too,
    and takes three times as long."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def test_every_method_is_there():
    assert {method.name for method in ZOO.methods} == {method for method, _ in CELLS}


@pytest.mark.parametrize(("method", "memory"), CELLS)
def test_what_is_planned_is_what_runs(method, memory, tmp_path):
    """And, where it is looked at, both are what torch counts while it trains."""
    run = resolve(content(method, memory), ZOO, "test")
    counter = Counter() if memory in LOOKED_AT else nullcontext()
    with sdpa_kernel(SDPBackend.MATH), counter:  # a fused attention would not be seen
        trainer = train(run, tmp_path, ZOO, "cpu")
    cost = trainer.cost()
    assert UPDATES * flops_per_update(run, ZOO) == pytest.approx(cost["flops"], rel=0.02)
    if memory in LOOKED_AT:
        assert cost["flops"] == pytest.approx(counter.flops, rel=0.02)
    planned = counted_passes(run, ZOO).counts
    for role, count in planned.items():
        for kind, value in count.items():
            assert UPDATES * value == pytest.approx(cost["passes"][role][kind]), (role, kind)


def study_of(arms, budget_of, memory="window", updates=40):
    base = content("x", memory, updates=updates)
    del base["method"]
    evaluation = {"metrics": ["digits-fd"], "nfe": [1]}
    study = {"name": "test", "title": "test", "base": base, "arms": arms}
    study |= {"match": "compute", "budget_of": budget_of, "evaluation": evaluation}
    return load_study(study, "test")


def test_equal_budgets_are_equal_costs(tmp_path):
    """Masked passes see every frame twice, which no count of videos shows."""
    arms = {name: {"method": name} for name in ("teacher-forcing", "diffusion-forcing")}
    study = study_of(arms, "teacher-forcing", updates=24)
    runs, _ = match_budget(study, runs_of(study, ZOO, "test"), ZOO)
    assert runs["diffusion-forcing"].config.training.updates > 36
    budget = planned_flops(study, runs, ZOO)
    recorded = {
        label: train(run, tmp_path / label, ZOO, "cpu").cost()["flops"]
        for label, run in runs.items()
    }
    for label, flops in recorded.items():
        assert flops == pytest.approx(budget[label], rel=0.02)
        assert flops == pytest.approx(recorded["teacher-forcing"], rel=0.02)


def test_a_term_that_starts_late_is_averaged_over_the_matched_updates():
    """With 40 updates the term would be due in half of them; with those of the budget in few."""
    few = {"fake_score": {"updates": 1}, "steps": {4: 1.0}}
    objectives = {"self-consistency": None, "cache-alignment": {"start": 20, "reference": {4: 16}}}
    arms = {
        "small": {"method": {"name": "dmd", **few}, "training": {"updates": 24}},
        "late": {"method": {"name": "cda", **few, "objectives": objectives}},
    }
    study = study_of(arms, "small")
    unmatched = runs_of(study, ZOO, "test")
    runs, _ = match_budget(study, unmatched, ZOO)
    budget = planned_flops(study, runs, ZOO)
    one = budget["late"] / runs["late"].config.training.updates
    assert one < 0.95 * flops_per_update(unmatched["late"], ZOO)
    # no other number of updates would come nearer
    assert abs(budget["late"] - budget["small"]) < 0.6 * one
