"""CDA as a method: terms that are off are not there, what is aligned, draws, passes, refusals."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import step_rng
from salt_zoo.costs.passes import count_forward_passes
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.launch import train as train_run
from tests.blocks.plugin import ToyBackbone

MIXED = {8: 0.4, 4: 0.4, 2: 0.2}
#: The lists of the student's turns of the first updates, and the exits, as the seed draws them.
UPDATES = 8


@pytest.fixture(scope="module")
def toys():
    return load_zoo(["tests.gaussian.plugin", "tests.blocks.plugin"])


@pytest.fixture(scope="module")
def trained(toys, tmp_path_factory):
    """Trains a method for a few updates on a toy; returns the trainer and every update's logs,
    which are the same for all tests that ask for the same."""
    folder, runs = tmp_path_factory.mktemp("runs"), {}

    def run(method, backbone="toy-blocks", updates=UPDATES):
        key = repr((method, backbone, updates))
        if key not in runs:
            runs[key] = train(method, backbone, updates, folder / str(len(runs)))
        return runs[key]

    def train(method, backbone, updates, folder):
        options = {"learning_rate": 0.01, "fake_score": {"learning_rate": 0.02, "updates": 1}}
        content = {
            "method": {**options, **method},
            "backbone": backbone,
            "dataset": backbone,
            "training": {"updates": updates, "batch_size": 2, "trackers": []},
        }
        logs = []
        resolved = resolve(content, toys, "test")
        return train_run(resolved, folder, toys, "cpu", lambda *found: logs.append(found[2])), logs

    return run


def same(first, second):
    return all(
        torch.equal(one, other)
        for (_, a), (_, b) in zip(first.networks.items(), second.networks.items(), strict=True)
        for one, other in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def make(toys, name="cda", **options):
    return toys.methods.create(name, toys.methods.configure(name, options, "test"), toys)


def alignment(**options):
    return {"objectives": {"cache-alignment": {"start": 0, **options}}}


def paths(method, updates=UPDATES):
    """The student's path of every update."""
    return [
        method.path(step_rng(0, "student", step, 0, range(1), "cpu")) for step in range(updates)
    ]


def due(method, reference=(2, 4), updates=UPDATES):
    """Which updates have an aligned list with an exit above 0."""
    return [len(p.times) in reference and p.exit_step > 0 for p in paths(method, updates)]


@pytest.mark.parametrize("off", [{"weight": 0}, None])
def test_without_its_term_cda_is_sc_dmd_on_mixed_lists(trained, off):
    plain, _ = trained({"name": "sc-dmd", "steps": MIXED})
    other, _ = trained({"name": "cda", "objectives": {"cache-alignment": off}})
    assert same(plain, other)


def test_without_mixed_lists_cda_is_sc_dmd(trained):
    plain, _ = trained({"name": "sc-dmd"})
    for steps in (8, {8: 1.0}):
        other, logs = trained({"name": "cda", "steps": steps, **alignment()})
        assert same(plain, other)
        assert not any("student/cache_alignment" in found for found in logs)


def test_without_self_consistency_cda_is_dmd_with_the_term(trained):
    term = {"cache-alignment": {"start": 0}}
    plain, logs = trained(
        {"name": "dmd", "steps": MIXED, "objectives": {"distribution-matching": {}, **term}}
    )
    assert any("student/cache_alignment" in found for found in logs)
    for off in ({"weight": 0}, None):
        objectives = {"self-consistency": off, **term}
        other, _ = trained({"name": "cda", "objectives": objectives})
        assert same(plain, other)


def test_the_term_is_used_from_its_start_on(toys, trained):
    aligned = due(make(toys))
    first = aligned.index(True)
    plain, _ = trained({"name": "cda", "objectives": {"cache-alignment": None}}, updates=first + 1)
    before, logs = trained({"name": "cda", **alignment(start=first + 1)}, updates=first + 1)
    assert same(plain, before)
    assert not any("student/cache_alignment" in found for found in logs)
    after, logs = trained({"name": "cda", **alignment(start=first)}, updates=first + 1)
    assert not same(plain, after)
    assert "student/cache_alignment" in logs[first]


@pytest.mark.parametrize("reference", [{2: 4}, {2: 4, 4: 8}])
def test_only_listed_lists_with_an_exit_above_0_are_aligned(toys, trained, reference):
    _, logs = trained({"name": "cda", **alignment(reference=reference)}, updates=16)
    expected = due(make(toys), tuple(reference), 16)
    assert ["student/cache_alignment" in found for found in logs] == expected
    assert any(expected) and not all(expected)


def test_the_default_lists_are_the_papers(toys):
    objective = make(toys).objectives["cache-alignment"]
    assert objective.config.reference == {2: 4, 4: 8}
    assert (objective.config.weight, objective.config.start) == (0.1, 200)


def test_the_term_changes_no_other_draw(toys, trained):
    first = due(make(toys)).index(True)
    _, plain = trained({"name": "cda", "objectives": {"cache-alignment": None}}, updates=first + 1)
    _, other = trained({"name": "cda", **alignment()}, updates=first + 1)
    own = "student/distribution_matching"
    assert other[first][own] == plain[first].get(own, plain[first]["student/loss"])
    assert other[first]["fake_score/loss"] == plain[first]["fake_score/loss"]
    found = other[first]
    total = found[own] + 0.1 * found["student/cache_alignment"]
    assert found["student/loss"] == pytest.approx(total)


def test_draws_have_the_configured_frequencies(toys):
    method, count = make(toys), 2000
    turns = [
        [method.path(step_rng(0, role, s, 0, range(1), "cpu")) for s in range(count)]
        for role in ("student", "fake_score")
    ]
    for drawn in turns:
        for steps, share in MIXED.items():
            of_list = [path.exit_step for path in drawn if len(path.times) == steps]
            assert len(of_list) / count == pytest.approx(share, abs=0.04)
            for exit_step in range(steps):
                assert of_list.count(exit_step) / len(of_list) == pytest.approx(1 / steps, abs=0.06)
    # independent: both turns have the same list as often as chance says
    equal = sum(len(a.times) == len(b.times) for a, b in zip(*turns, strict=True)) / count
    assert equal == pytest.approx(0.4**2 + 0.4**2 + 0.2**2, abs=0.04)


def test_a_bidirectional_backbone_is_refused_the_term_alone(trained):
    with pytest.raises(ZooError) as caught:
        trained({"name": "cda"}, "gaussian", updates=1)
    text = str(caught.value)
    assert "bidirectional and has no KV cache" in text and "\n" not in text
    assert "objectives.cache-alignment: null" in text
    trained({"name": "cda", "objectives": {"cache-alignment": None}}, "gaussian", updates=2)
    trained({"name": "dmd", "steps": MIXED}, "gaussian", updates=2)
    trained({"name": "sc-dmd", "steps": MIXED}, "gaussian", updates=2)


def test_lists_that_a_run_names_replace_the_papers(toys):
    for steps in ({8: 0.5, 2: 0.5}, {"8": 0.5, "2": 0.5}):  # `--set` makes texts of keys
        assert make(toys, steps=steps).config.steps == {8: 0.5, 2: 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": {4: 6}}, "4: 6; a reference list has a whole multiple"),
        ({"reference": {4: 4}}, "4: 4; a reference list"),
        ({"reference": {4: 2}}, "4: 2; a reference list"),
        ({"reference": {1: 2}}, "reference"),
        ({"kernel": "laplac"}, "did you mean 'laplace'"),
        ({"loss": "tdr"}, "loss"),
        ({"renoising": "noise_aligned_a"}, "renoising"),
        ({"weigth": 1}, "did you mean 'weight'"),
        ({"depth": 1.5}, "depth"),
        ({"sigma": 0}, "sigma"),
    ],
)
def test_wrong_options_are_one_line(toys, options, message):
    with pytest.raises(ZooError) as caught:
        make(toys, **alignment(**options))
    text = str(caught.value)
    assert message in text and "cache-alignment" in text and "\n" not in text


def test_another_shift_than_the_methods_is_one_line(toys, trained):
    with pytest.raises(ZooError, match=r"cache-alignment.timestep_shift must be the method's"):
        trained({"name": "cda", "timestep_shift": 3.0, **alignment()})


def test_planned_passes_are_the_ones_that_run(toys, trained):
    """Blocks of 2 of 6 frames: a list of k steps that exits at e has e + 1 passes; its reference
    has twice as many steps up to the same time."""
    method = make(toys, fake_score={"updates": 1}, **alignment())
    trainer, _ = trained({"name": "cda", **alignment()})
    planned = count_forward_passes(method, ToyBackbone(None, None), UPDATES).counts
    counted = trainer.counter.counts
    for role, count in planned.items():
        for kind, value in count.items():
            assert 2 * UPDATES * value == pytest.approx(counted[role][kind]), (role, kind)
    aligned = due(method)
    # features are taken halfway through the teacher
    assert counted["teacher"]["forward"] == 2 * (2 * UPDATES + 2 * 0.5 * sum(aligned))
    assert counted["teacher"]["backward"] == 2 * 0.5 * sum(aligned)
    extra = sum(
        2 * p.exit_step + 1 for p, is_due in zip(paths(method), aligned, strict=True) if is_due
    )
    without, _ = trained({"name": "cda", "objectives": {"cache-alignment": None}})
    more = counted["student"]["forward"] - without.counter.counts["student"]["forward"]
    assert more == pytest.approx(2 * extra)


def test_a_plan_sees_a_term_that_starts_late(toys, monkeypatch):
    """Fewer updates are looked at than by default; they are as evenly spread over the run."""
    monkeypatch.setattr("salt_zoo.costs.passes._MOST", 40)
    method = make(toys, **alignment(start=700))
    early = count_forward_passes(method, ToyBackbone(None, None), 400).counts
    whole = count_forward_passes(method, ToyBackbone(None, None), 2000).counts
    assert early["teacher"]["backward"] == 0 < whole["teacher"]["backward"]
