"""Videos that processes share: who has which rows, what is refused, and what is planned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from salt_zoo.config.execution import ExecutionConfig
from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.sequence import SequenceGroup
from salt_zoo.core.networks.token_sharing import share_tokens
from salt_zoo.planning.check import check_training
from salt_zoo.planning.fit import find_fit
from salt_zoo.planning.plan import Plan, plan_run
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.checkpoints.checkpoint import newest_whole
from salt_zoo.training.state.layout import make_layout
from salt_zoo_self_forcing.memories.full import FullMemory
from salt_zoo_wan.transformer.network import WanNetwork
from tests.plugins import tiny_causal as tiny
from tests.test_matrix import ZOO, content


def test_processes_that_share_a_video_have_its_rows():
    """Six processes in pairs: three micro-batches of two at a time, two times."""
    execution = ExecutionConfig(sequence=2, micro_batch=2)
    layouts = [make_layout(execution, 12, 6, rank) for rank in range(6)]
    assert {layout.accumulation for layout in layouts} == {2}
    rows = [[*layout.rows(0), *layout.rows(1)] for layout in layouts]
    assert rows[0] == rows[1] == [0, 1, 6, 7]
    assert rows[2] == rows[3] == [2, 3, 8, 9]
    assert rows[4] == rows[5] == [4, 5, 10, 11]


@pytest.mark.parametrize(("saved", "loaded"), [(2, 1), (4, 0), (1, 0)])
def test_processes_that_share_a_video_have_the_state_of_its_method(
    saved, loaded, train, tmp_path, monkeypatch
):
    """Process 3 of 4 in pairs: a run of as many shares goes on with that of the second pair."""
    trainer = train(tmp_path, training={"updates": 1})
    trainer.kept = newest_whole(tmp_path / "checkpoints")[0]
    trainer.layout = make_layout(ExecutionConfig(sequence=2), 2, 4, 3)
    told = []
    monkeypatch.setattr(trainer, "_checked", SimpleNamespace(load_state_dict=told.append))
    states = [{"share": n} for n in range(saved)]
    monkeypatch.setattr("salt_zoo.training.trainer.load_checkpoint", lambda *given: states)
    trainer._resume()
    assert told == [{"share": loaded}]


def shape(frames: int) -> tuple[int, ...]:
    return (tiny.CHANNELS, frames, tiny.SIZE, tiny.SIZE)


@pytest.mark.parametrize(
    ("network", "frames", "processes", "said"),
    [
        (WanNetwork(tiny.transformer()), 5, 3, "2 attention heads cannot be shared by 3"),
        (
            tiny.network(frames=2, first=1),
            5,
            8,
            "2 attention heads .* by 8 processes; write 1 or 2$",
        ),
    ],
)
def test_heads_that_do_not_divide(network, frames, processes, said):
    with pytest.raises(ZooError, match=f"^execution.sequence: {said}"):
        share_tokens(network, SequenceGroup(processes), shape(frames))


def test_tokens_that_do_not_divide():
    """A frame of 1 x 3 tokens: 12 in a video of 4, but 3 in a first frame that is a block."""
    size = (tiny.CHANNELS, 5, 2, 6)
    share_tokens(WanNetwork(tiny.transformer()), SequenceGroup(2), (tiny.CHANNELS, 4, 2, 6))
    share_tokens(tiny.network(frames=2), SequenceGroup(2), (tiny.CHANNELS, 4, 2, 6))
    for network, tokens in ((WanNetwork(tiny.transformer()), 15), (tiny.network(first=1), 3)):
        with pytest.raises(ZooError, match=f"the {tokens} tokens of a pass .* 2 .*; write 1$"):
            share_tokens(network, SequenceGroup(2), size)


def test_a_pass_of_another_length_that_does_not_divide():
    network = WanNetwork(tiny.transformer())
    share_tokens(network, SequenceGroup(2), (tiny.CHANNELS, 4, 2, 6))
    with pytest.raises(ZooError, match="a pass of 9 tokens cannot be shared by 2 processes"):
        network(
            tiny.video(3)[..., :2, :].repeat(1, 1, 1, 1, 2)[..., :6], tiny.at(0.5), tiny.prompt()
        )


def test_a_memory_that_needs_all_heads():
    class Ranked(FullMemory):
        needs_all_heads = "it keeps the tokens that most heads look at"

    network = tiny.network(tiny.policy("full"))
    share_tokens(network, SequenceGroup(2), shape(6))
    policy: Any = Ranked(tiny.MEMORIES["full"][1](), None)
    with pytest.raises(ZooError) as error:
        share_tokens(tiny.network(policy), SequenceGroup(2), shape(6))
    assert str(error.value) == (
        "execution.sequence: the memory cannot be shared by 2 processes: it keeps the tokens that "
        "most heads look at; write 1, or choose another backbone.memory"
    )


def test_networks_that_share_nothing():
    run = resolve(content("dmd", "gaussian", None) | {"execution": {"sequence": 2}}, ZOO, "test")
    with pytest.raises(ZooError, match="networks cannot share a video among processes; write 1"):
        plan_run(run, ZOO, "cpu", processes=2)


def test_a_method_whose_first_role_follows_another_is_checked():
    zoo = load_zoo(["tests.copies.plugin", "tests.sizes.plugin"])
    run = content("dmd", "self-forcing", "full") | {"execution": {"sequence": 3}}
    resolved = resolve(run | {"method": {"name": "phases"}}, zoo, "test")
    with pytest.raises(ZooError, match=r"^test: execution\.sequence: 4 attention heads"):
        check_training(resolved, zoo, "test")


def plan(processes: int, **execution: Any) -> Plan:
    run = content("dmd", "self-forcing", "full") | {"execution": execution}
    run["training"]["batch_size"] = 4
    return plan_run(resolve(run, ZOO, "test"), ZOO, "cuda", processes)


def test_a_plan_of_shared_videos():
    """Four processes have a video each, or share two, or one: of the same micro-batch each holds a
    part of the memory and of the activations, and the same weights."""
    alone, pair, four = (plan(4, sequence=n, micro_batch=1, shard=1) for n in (1, 2, 4))
    assert [one.sequence for one in (alone, pair, four)] == [1, 2, 4]
    for n, one in ((2, pair), (4, four)):
        assert one.micro_batch == 1 and one.flops == alone.flops and one.passes == alone.passes
        assert one.memory["KV memory"] * n == alone.memory["KV memory"]
        part = one.memory["activations"] / alone.memory["activations"]
        assert 1 / n < part < 1 / n + 0.25  # what enters and leaves a network is whole
        same = alone.memory.keys() - {"KV memory", "activations"}
        assert all(one.memory[key] == alone.memory[key] for key in same)


@pytest.mark.slow
def test_the_search_shares_videos_last():
    """Heads are four: eight cannot share them, and what they cannot is not tried."""
    run = content("dmd", "self-forcing", "full")
    run["backbone"]["size"] = "test-tiny"
    run["training"]["batch_size"] = 8
    runs = {"": resolve(run, ZOO, "test")}
    fit = find_fit(runs, ZOO, 8, 2.0 + 1e-6)
    assert [setting.what for setting in fit.tried][-2:] == [
        "sequence parallelism over 2 GPUs",
        "sequence parallelism over 4 GPUs",
    ]
    peaks = [setting.peak for setting in fit.tried]
    assert fit.found is None and peaks == sorted(peaks, reverse=True)
    assert fit.tried[-1].changes["shard"] == 8 and fit.tried[-1].changes["sequence"] == 4
    enough = find_fit(runs, ZOO, 8, 2.0 + (peaks[-2] + peaks[-1]) / 2)
    assert enough.found is not None and enough.found.changes["sequence"] == 4
