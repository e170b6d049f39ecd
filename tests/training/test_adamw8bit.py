"""Moments of 8 bits by torchao: their checkpoints, on any number of processes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from salt_zoo.config.run import resolve
from salt_zoo.config.training import OptimizerConfig
from salt_zoo.core.base.errors import ZooError
from salt_zoo.planning.check import check_training
from salt_zoo.planning.plan import GIB, plan_run
from salt_zoo.training.checkpoints.checkpoint import load_checkpoint, newest_whole
from salt_zoo.training.launch import train
from salt_zoo.training.state.optimizers import make_optimizers, set_rates
from tests.test_matrix import ZOO
from tests.training.small_runs import run_of, sharded

EIGHT = {"name": "adamw8bit", "betas": [0.9, 0.999]}


def test_without_torchao_it_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run = resolve(eight(run_of("consistency", "wan", None)), ZOO, "test")
    said = r"^here: training\.optimizers\.student\.name: .*; run: pip install 'salt-zoo\[scale\]'$"
    with pytest.raises(ZooError, match=said):
        check_training(run, ZOO, "here")


def eight(run: dict[str, Any]) -> dict[str, Any]:
    return run | {"training": run["training"] | {"optimizers": {"student": EIGHT}}}


@pytest.fixture
def eager(monkeypatch):
    """torchao compiles its update, which takes minutes and changes no more than rounding."""
    pytest.importorskip("torchao", reason="needs the extra 'scale' (torchao)")
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # in processes that are started
    with torch.compiler.set_stance("force_eager"):
        yield


def test_it_is_adamw_but_for_the_rounding_of_moments(eager):
    """A weight of 64 x 64 is quantised, in blocks of 256; one of 64 is not, and is AdamW's own."""
    torch.manual_seed(0)
    ours = nn.Linear(64, 64)
    theirs = copy.deepcopy(ours)
    (own,) = make_optimizers(ours, OptimizerConfig(**EIGHT), 1e-3)
    (other,) = make_optimizers(theirs, OptimizerConfig(betas=(0.9, 0.999)), 1e-3)
    for step in range(5):
        x = torch.randn(8, 64, generator=torch.Generator().manual_seed(step))
        for network, optimizer in ((ours, own), (theirs, other)):
            network(x).square().mean().backward()
            set_rates([optimizer], 0.5)
            optimizer.step()
            optimizer.zero_grad()
    moved = (theirs.weight - ours.weight).abs().mean() / 2.5e-3
    assert 1e-5 < moved < 0.05
    assert torch.allclose(ours.bias, theirs.bias, atol=2e-5)


def states(networks: Any) -> dict[str, torch.Tensor]:
    from torchao.optim.subclass_8bit import OptimState8bit

    found = {}
    names = {p: name for name, p in networks["student"].named_parameters()}
    for weight, kept in networks.optimizers["student"][0].state.items():
        for key, value in kept.items():
            if isinstance(value, OptimState8bit):
                found[f"{names[weight]} {key} codes"] = value.codes.clone()
                found[f"{names[weight]} {key} scale"] = value.scale.clone()
                value = value.dequantize()
            found[f"{names[weight]} {key}"] = value.clone()
    return found


def loaded(run: dict[str, Any], folder: Path) -> Any:
    """The networks of the newest checkpoint, in this process alone."""
    kept, lines = newest_whole(folder / "checkpoints")
    assert kept is not None and not lines
    run = run | {"training": run["training"] | {"updates": kept.step}, "execution": {}}
    made = train(resolve(run, ZOO, "test"), folder, ZOO, "cpu")
    load_checkpoint(kept, made.networks, "cpu")
    return made.networks


def until(run: dict[str, Any], updates: int) -> dict[str, Any]:
    return run | {"training": run["training"] | {"updates": updates}}


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(eager, tmp_path):
    run = eight(run_of("teacher-forcing", "wan", None))
    run["training"] |= {"updates": 3, "checkpoint_every": 1}
    whole = train(resolve(run, ZOO, "test"), tmp_path / "whole", ZOO, "cpu").networks
    train(resolve(until(run, 1), ZOO, "test"), tmp_path / "parts", ZOO, "cpu")
    parts = train(resolve(run, ZOO, "test"), tmp_path / "parts", ZOO, "cpu").networks
    for key, value in whole["student"].state_dict().items():
        assert torch.equal(parts["student"].state_dict()[key], value), key
    wanted, found = states(whole), states(parts)
    assert any(key.endswith("codes") for key in wanted)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    # plain tensors, which load where torchao is not
    content = torch.load(
        tmp_path / "parts" / "checkpoints" / "step-000003" / "optimizers.pt", weights_only=True
    )
    for kept in content["student"][0]["state"].values():
        for moment in ("exp_avg", "exp_avg_sq"):
            assert {type(t) for t in kept[moment].values()} == {torch.Tensor}


def test_the_plan_knows_their_bytes(eager, tmp_path):
    run = resolve(eight(run_of("teacher-forcing", "wan", None)), ZOO, "test")
    made = train(run, tmp_path, ZOO, "cpu").networks
    held = 0
    for kept in made.optimizers["student"][0].state.values():
        for key in ("exp_avg", "exp_avg_sq"):
            names = ("codes", "scale", "qmap")
            whole = [getattr(kept[key], n) for n in names if hasattr(kept[key], n)] or [kept[key]]
            held += sum(t.numel() * t.element_size() for t in whole)
    assert plan_run(run, ZOO, "cpu").states["student"] * GIB == pytest.approx(held)


@pytest.mark.slow
def test_sharded_and_on_other_numbers_of_processes(eager, train_in_two, tmp_path):
    """2 then 2 processes are bitwise 2 uninterrupted; 2, 1, 2 are one, but for the rounding."""
    run = eight(run_of("teacher-forcing", "wan", None))
    run["training"] |= {"updates": 3, "checkpoint_every": 1}
    jobs = [("whole", run), ("same", until(run, 1)), ("same", run), ("parts", until(run, 1))]
    train_in_two([(sharded(content), tmp_path / name) for name, content in jobs])
    train(resolve(until(run, 2), ZOO, "test"), tmp_path / "parts", ZOO, "cpu")
    train_in_two([(sharded(run), tmp_path / "parts")])
    train(resolve(run, ZOO, "test"), tmp_path / "alone", ZOO, "cpu")
    folders = ("whole", "same", "parts", "alone")
    whole, same, parts, alone = (states(loaded(run, tmp_path / name)) for name in folders)
    for key in whole:
        assert torch.equal(same[key], whole[key]), key
    for key, value in alone.items():
        if not key.endswith(("codes", "scale")):
            scale = value.abs().max().clamp_min(1e-12)
            assert ((parts[key] - value).abs().max() / scale) < 0.05, key
    steps = {float(value) for key, value in parts.items() if key.endswith(" step")}
    assert steps == {3.0}
    state = json.loads((tmp_path / "parts/checkpoints/step-000003/state.json").read_text())
    assert len([f for f in state["files"] if f.startswith("shard-")]) == 2
