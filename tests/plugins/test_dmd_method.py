"""DMD and SC-DMD as methods: terms that are off are not there, draws, passes, blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core import flow
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG, step_rng
from salt_zoo.core.protocols import Batch, TrainStep
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.launch import train as train_run
from salt_zoo_dmd.method import DMD
from salt_zoo_dmd.semigroup import choices
from tests.blocks.plugin import BLOCK, ToyBackbone

UPDATES, BATCH, FAKE_UPDATES = 6, 4, 2
MATCHING = {"distribution-matching": {"guidance_scale": 4.0}}


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
        options = {"learning_rate": 0.01, "fake_score": {"learning_rate": 0.02, "updates": 2}}
        content = {
            "method": {**options, **method},
            "backbone": backbone,
            "dataset": backbone,
            "training": {"updates": updates, "batch_size": BATCH, "trackers": []},
        }
        logs = []
        trainer = train_run(
            resolve(content, toys, "test"),
            folder,
            toys,
            "cpu",
            lambda step, updates, found: logs.append(found),
        )
        return trainer, logs

    return run


def same(first, second):
    pairs = zip(first.networks.items(), second.networks.items(), strict=True)
    return all(
        torch.equal(one, other)
        for (_, a), (_, b) in pairs
        for one, other in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def exits(steps, updates=UPDATES):
    """The exit step of every turn, fake score first: drawn from the turn's own stream."""
    return [
        [
            step_rng(0, role, step, update, range(1), "cpu").shared_randint(steps, "exit step")
            for role, count in (("fake_score", FAKE_UPDATES), ("student", 1))
            for update in range(count)
        ]
        for step in range(updates)
    ]


@pytest.mark.parametrize("name", ["dmd", "sc-dmd", "cda"])
@pytest.mark.parametrize("ratio", [1, 5])
def test_student_first_is_the_published_order(toys, name, ratio):
    """Published loops train the fake score in every turn, and before it the student in every
    `ratio`-th: the turns of several updates, one after the other, are those of such a loop."""
    options = {"order": "student-first", "fake_score": {"updates": ratio}}
    method = toys.methods.create(name, toys.methods.configure(name, options, "test"), toys)
    loop = []
    for step in range(3 * ratio):
        loop += ["student"] if step % ratio == 0 else []
        loop += ["fake_score"]
    assert [role for step in range(3) for role in method.update_order(step)] == loop
    options["order"] = "fake-score-first"
    method = toys.methods.create(name, toys.methods.configure(name, options, "test"), toys)
    assert list(method.update_order(0)) == ["fake_score"] * ratio + ["student"]


def test_the_first_of_an_update_does_not_know_what_the_other_learns_in_it(trained):
    def after_one_update(order, rate):
        options = {"order": order, "fake_score": {"learning_rate": rate, "updates": 2}}
        return trained({"name": "dmd", "objectives": MATCHING, **options}, updates=1)[0]

    def same_student(order):
        slow, fast = (after_one_update(order, rate).networks["student"] for rate in (1e-6, 0.5))
        return all(map(torch.equal, slow.parameters(), fast.parameters()))

    assert same_student("student-first") and not same_student("fake-score-first")
    first, last = (after_one_update(o, 0.02) for o in ("student-first", "fake-score-first"))
    assert first.counter.counts["teacher"] == last.counter.counts["teacher"]
    assert first.counter.counts["fake_score"] == last.counter.counts["fake_score"]


@pytest.mark.parametrize("backbone", ["toy-blocks", "gaussian"])
@pytest.mark.parametrize("off", [{"weight": 0}, None])
def test_without_its_term_sc_dmd_is_dmd_bitwise(trained, backbone, off):
    plain, _ = trained({"name": "dmd", "steps": 8, "objectives": MATCHING}, backbone)
    objectives = {**MATCHING, "self-consistency": off}
    other, _ = trained({"name": "sc-dmd", "objectives": objectives}, backbone)
    assert same(plain, other)


def test_the_term_changes_the_student(trained):
    plain, _ = trained({"name": "dmd", "steps": 8, "objectives": MATCHING})
    term = {"time_weight": "none"}
    other, _ = trained({"name": "sc-dmd", "objectives": {**MATCHING, "self-consistency": term}})
    assert not same(plain, other)


def test_the_term_changes_no_other_draw(trained):
    """In the first update, before any weight differs, the other term has the same value."""
    first_exit = exits(8, 1)[0][-1]
    assert choices(flow.step_list(8, 5.0), first_exit, 4), "the first update must have the term"
    _, plain = trained({"name": "dmd", "steps": 8, "objectives": MATCHING}, updates=1)
    term = {**MATCHING, "self-consistency": {"time_weight": "none"}}
    _, other = trained({"name": "sc-dmd", "objectives": term}, updates=1)
    assert other[0]["student/distribution_matching"] == plain[0]["student/loss"]
    assert other[0]["fake_score/loss"] == plain[0]["fake_score/loss"]
    total = other[0]["student/distribution_matching"] + 0.2 * other[0]["student/self_consistency"]
    assert other[0]["student/loss"] == pytest.approx(total)


def test_arms_with_other_numbers_of_fake_score_updates_share_their_draws(trained, monkeypatch):
    """The student's prompts and noise, and those of the turns of the fake score that both have."""
    seen = []

    def spy(self, step):
        noise = step.rng.randn((8,), "initial noise").tolist()
        seen.append((step.role, (step.index, step.batch.prompts, noise)))
        return train(self, step)

    train = DMD.train
    monkeypatch.setattr(DMD, "train", spy)
    found = {}
    for updates in (2, 5):
        seen.clear()
        trained({"name": "dmd", "fake_score": {"learning_rate": 0.02, "updates": updates}})
        for role in ("student", "fake_score"):
            found[updates, role] = [what for whose, what in seen if whose == role]
    assert found[2, "student"] == found[5, "student"]
    assert len({str(noise) for _, _, noise in found[5, "fake_score"]}) == 5 * UPDATES
    assert all(step in found[5, "fake_score"] for step in found[2, "fake_score"])


@pytest.mark.parametrize(
    "objectives",
    [
        {"distribution-matching": None},
        {"distribution-matching": {"weight": 0}},
        {"distribution-matching": None, "self-consistency": {"weight": 0.0}},
    ],
)
def test_with_every_term_off_there_is_nothing_to_train(trained, objectives):
    with pytest.raises(ZooError, match=r"method\.objectives: every term is switched off"):
        trained({"name": "dmd", "objectives": objectives})


@pytest.mark.parametrize("backbone", ["toy-blocks", "gaussian"])
def test_passes_of_dmd_are_counted_by_hand(trained, backbone):
    """With the 4-step list: e + 1 passes to exit e; guidance doubles the teacher's only one.

    In blocks, every student's turn runs the exit steps once more.
    """
    trainer, _ = trained({"name": "dmd", "objectives": MATCHING}, backbone)
    counts = trainer.counter.counts
    again = UPDATES if backbone == "toy-blocks" else 0
    steps = again + sum(exit_step + 1 for turns in exits(4) for exit_step in turns)
    assert counts["student"]["forward"] == pytest.approx(BATCH * steps)
    assert counts["student"]["backward"] == pytest.approx(BATCH * UPDATES)
    assert counts["teacher"] == {"forward": 2.0 * BATCH * UPDATES, "backward": 0.0}
    trained_on = BATCH * UPDATES * FAKE_UPDATES
    assert counts["fake_score"]["forward"] == trained_on + BATCH * UPDATES
    assert counts["fake_score"]["backward"] == trained_on


def test_the_term_costs_one_pass_where_it_is_due(trained):
    trainer, _ = trained({"name": "sc-dmd", "objectives": {**MATCHING, "self-consistency": {}}})
    turns = exits(8)
    steps = sum(exit_step + 1 for update in turns for exit_step in update)
    due = sum(update[-1] < 7 for update in turns)
    counts = trainer.counter.counts["student"]
    assert counts["forward"] == pytest.approx(BATCH * (steps + due + UPDATES))
    assert counts["backward"] == pytest.approx(BATCH * UPDATES)


def student_turn(method, network, rng=None):
    """A turn of the student on the toy, with whatever the method hands to `backward`."""
    toy, rng = ToyBackbone(None, None), rng or KeyedRNG(0, rows=range(2))
    frozen = toy.network("teacher").requires_grad_(False)
    handed = []
    step = TrainStep(
        role="student",
        index=0,
        networks={"student": network, "teacher": frozen, "fake_score": frozen},
        batch=Batch(
            ["one", "two"],
            toy.encode_prompts(["one", "two"]),
            toy.encode_prompts(["", ""]),
            None,
        ),
        rng=rng,
        blocks=toy.blocks(),
        latent_shape=toy.latent_shape,
        backward=handed.append,
    )
    return method.train(step), handed


def make(toys, name, **options):
    return toys.methods.create(name, toys.methods.configure(name, options, "test"), toys)


def draws_with_exit(steps, wanted):
    """Draws whose exit step is the wanted one."""
    for seed in range(1000):
        rng = KeyedRNG(seed, rows=range(2))
        if rng.shared_randint(steps, "exit step") == wanted:
            return rng
    raise AssertionError


def test_the_probe_runs_under_the_memory_of_its_own_block(toys):
    """At exit 2 of 8, every block: three steps and the commit; then, all blocks once more, the exit
    step, one probe with as much memory, and the commit."""
    network = ToyBackbone(None, None).network("student")
    method = make(toys, "sc-dmd")
    student_turn(method, network, draws_with_exit(8, 2))
    times = flow.step_list(8, 5.0)
    pairs = choices(times, 2, 4)
    probes = set()
    for block in range(3):
        part = [call for call in network.calls if call[3] == block]
        kept = ["update_cache"] * (block < 2)
        kinds = [call[0] for call in part]
        assert kinds == ["forward"] * 3 + kept + ["forward"] * 2 + kept
        assert [call[2] for call in part[:3]] == pytest.approx(times[:3])
        exit_step, probe = part[3 + len(kept) : 5 + len(kept)]
        assert exit_step[2] == pytest.approx(times[2])
        assert all(call[1] == BLOCK for call in part)
        probes.add(probe[2])
    (probe,) = probes  # all blocks share one pair of times
    assert any(probe == pytest.approx(m) for _, middles in pairs for m in middles)


def test_the_term_is_the_mean_over_blocks(toys):
    network = ToyBackbone(None, None).network("student")
    method = make(toys, "sc-dmd")
    objective = method.objectives["self-consistency"]
    shares = []

    class Listening:
        weight = objective.weight
        on_video = staticmethod(objective.on_video)

        @staticmethod
        def on_exit(exit, path, step):
            shares.append(objective.on_exit(exit, path, step))
            return shares[-1]

    method.objectives["self-consistency"] = Listening()
    logs, handed = student_turn(method, network, draws_with_exit(8, 3))
    assert len(shares) == len(handed) == 3  # each block is back-propagated by itself
    torch.testing.assert_close(logs["self_consistency"], sum(shares).detach() / 3)
    torch.testing.assert_close(
        logs["loss"], logs["distribution_matching"] + 0.2 * logs["self_consistency"]
    )


def test_the_term_is_used_on_its_own_list_only(toys):
    network = ToyBackbone(None, None).network("student")
    method = make(toys, "sc-dmd", steps=4)
    logs, _ = student_turn(method, network, draws_with_exit(4, 0))
    assert set(logs) == {"loss"}


def test_mixed_lists_are_drawn_with_their_probabilities(toys):
    method = make(toys, "dmd", steps={8: 0.4, 4: 0.4, 2: 0.2})
    drawn = [method.path(KeyedRNG(seed)) for seed in range(2000)]
    for steps, share in ((8, 0.4), (4, 0.4), (2, 0.2)):
        of_list = [path.exit_step for path in drawn if len(path.times) == steps]
        assert len(of_list) / 2000 == pytest.approx(share, abs=0.04)
        for exit_step in range(steps):
            assert of_list.count(exit_step) / len(of_list) == pytest.approx(1 / steps, abs=0.06)


def test_rows_do_not_change_the_shared_draws(toys):
    method, rng = make(toys, "dmd"), KeyedRNG(5, rows=range(2))
    assert method.path(rng) == method.path(replace(rng, rows=range(2, 4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": {4: 0.5, 2: 0.2}}, "must sum to 1"),
        ({"steps": 0}, "steps"),
        ({"sampler": "heun"}, "sampler"),
        ({"objectives": {"self-consistencyy": {}}}, "did you mean 'self-consistency'"),
        ({"objectives": {"self-consistency": {"space": "pixel"}}}, "space"),
    ],
)
def test_wrong_options_are_named(toys, options, message):
    with pytest.raises(ZooError, match=message):
        make(toys, "sc-dmd", **options)
