"""Networks that two processes load by slices are those that one process loads whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from salt_zoo.plugin.manager import load_zoo
from salt_zoo_digits.size import CAUSAL, TEACHER, TRANSFORMER
from salt_zoo_wan.checkpoint.export import export_transformer
from salt_zoo_wan.checkpoint.load import load_transformer
from tests.training.sliced_runs import make_networks
from tests.two_processes import run_in_two_processes

pytestmark = pytest.mark.slow

ZOO = load_zoo(["tests.sizes.plugin", "tests.training.random_start"])


def run_of(backbone: dict[str, Any], method: str = "dmd", **training: Any) -> dict[str, Any]:
    return {
        "method": {"name": method},
        "backbone": {"size": "digits"} | backbone,
        "dataset": "digits",
        "training": {"batch_size": 2, "trackers": []} | training,
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Weights in other codes' files."""
    folder = tmp_path_factory.mktemp("files")
    teacher = load_transformer(TEACHER, TRANSFORMER)
    export_transformer(load_transformer(CAUSAL, TRANSFORMER), folder / "causal.pt", "self-forcing")
    export_transformer(teacher.half(), folder / "half.safetensors", "wan")
    state = load_transformer(TEACHER, TRANSFORMER).state_dict()
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    lora = {
        "transformer.blocks.0.attn1.to_q.lora_A.weight": torch.full((2, 64), 0.1),
        "transformer.blocks.0.attn1.to_q.lora_B.weight": torch.full((64, 2), 0.1),
    }
    save_file(lora, folder / "lora.safetensors")
    state["blocks.3.ffn.net.2.weight"][[0, -1, -1], [0, 0, 1]] = torch.nan
    save_file(state, folder / "nan.safetensors")
    return folder


LORA = {"student": {"rank": 4}, "fake_score": {"rank": 4}}


def runs(files: Path) -> dict[str, dict[str, Any]]:
    causal = {"name": "self-forcing"}
    half = {"weights": str(files / "half.safetensors")}
    return {
        "diffusers": run_of({"name": "wan"}),
        "wan-half-bf16": run_of({"name": "wan", "options": half}, precision="bf16"),
        "self-forcing-bf16": run_of(
            causal | {"initial": str(files / "causal.pt")}, precision="bf16"
        ),
        "lora": run_of(causal | {"initial": "teacher"}, lora=LORA),
        "lora-bf16": run_of({"name": "wan"}, lora={"student": {"rank": 4}}, precision="bf16"),
        "random": run_of({"name": "wan"}, "random-start"),
        "old": run_of({"name": "wan", "options": {"weights": str(files / "old.pt")}}),
        "merged": run_of(causal | {"initial": ["teacher", str(files / "lora.safetensors")]}),
        "no-files": run_of({"name": "wan", "size": "test-large"}),
    }


#: Runs whose networks the first process makes whole, and what it says.
WHOLE = {
    "old": "old.pt is a pickle that cannot be mapped",
    "merged": "lora.safetensors is merged into them (backbone.initial)",
    "no-files": "the size 'test-large' does not say in which files its weights are",
}


@pytest.fixture(scope="module")
def together(files, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    every = runs(files) | {
        "nan": run_of({"name": "wan", "options": {"weights": str(files / "nan.safetensors")}})
    }
    jobs = [
        (run | {"execution": {"shard": 2, "micro_batch": 1}}, str(folder / name))
        for name, run in every.items()
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    said = run_in_two_processes(Path(__file__).parent / "sliced_runs.py", folder / "jobs.json")
    (folder / "said.txt").write_text(said)
    return folder


NAMES = list(runs(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_bitwise_those_of_one_process(name, files, together):
    alone = make_networks(runs(files)[name], ZOO, 1, 0)
    for role, network in alone.items():
        found = load_file(together / name / f"{role}.safetensors")
        wanted = {**network.state_dict(), **dict(network.named_buffers())}
        assert found.keys() == wanted.keys(), role
        for key, value in wanted.items():
            assert found[key].dtype == value.dtype, (role, key)
            assert torch.equal(found[key], value), (role, key)


@pytest.mark.parametrize("name", NAMES)
def test_a_process_never_holds_a_whole_network(name, files, together):
    """The first one does where the weights are in no file as they are; one at a time."""
    alone = make_networks(runs(files)[name], ZOO, 1, 0)
    weights = {id(p): p for network in alone.values() for p in network.parameters()}.values()
    largest = max(p.numel() for p in weights) * 4
    whole = sum(p.numel() for p in alone["student"].parameters()) * 4
    for rank in range(2):
        numbers = json.loads((together / name / f"numbers-{rank}.json").read_text())
        held = sum(p.numel() * p.element_size() for p in weights) / 2
        assert numbers["held"] == pytest.approx(held, rel=0.05)
        over = numbers["most"] - numbers["held"]
        if rank == 0 and name in (*WHOLE, "random"):
            assert over > 0.9 * whole  # so the measure sees a whole network
        else:
            assert over < 0.25 * whole and over < 3 * largest


@pytest.mark.parametrize("name", WHOLE)
def test_it_is_said_where_a_whole_network_is_made(name, together):
    assert (together / "said.txt").read_text().count(WHOLE[name]) >= 1


def test_numbers_that_are_not_finite_are_found_in_all_parts(together):
    """Of one tensor, one in the first process's rows and two in the second's."""
    for rank in range(2):
        said = (together / "nan" / f"error-{rank}.txt").read_text()
        assert "nan.safetensors: 'transformer.blocks.3.ffn.net.2.weight' has 3 of" in said
