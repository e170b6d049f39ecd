"""Networks that two processes load by slices are those that one process loads whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import load_file, save_file

from salt_zoo.config.run import resolve
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo.planning.plan import GIB, plan_run
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.state.sliced_loading import can_load_slices
from salt_zoo_digits.size import TEACHER, TRANSFORMER
from salt_zoo_wan.backbone import WanBackbone, WanBackboneConfig
from salt_zoo_wan.checkpoint.export import export_transformer
from salt_zoo_wan.checkpoint.load import load_transformer
from tests.training.one_network import SHALLOW
from tests.training.sliced_runs import make_networks
from tests.two_processes import run_in_two_processes

pytestmark = pytest.mark.slow

ZOO = load_zoo(["tests.sizes.plugin", "tests.training.one_network"])


def run_of(
    backbone: dict[str, Any], method: str | dict[str, Any] = "dmd", **training: Any
) -> dict[str, Any]:
    return {
        "method": {"name": method} if isinstance(method, str) else method,
        "backbone": {"size": "shallow"} | backbone,
        "dataset": "digits",
        "training": {"batch_size": 2, "trackers": []} | training,
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Weights in other codes' files: no two alike, or one taken for another would pass."""
    folder = tmp_path_factory.mktemp("files")
    generator = torch.Generator().manual_seed(0)
    teacher, causal = (WanTransformer3DModel(**SHALLOW) for _ in range(2))
    for parameter in (*teacher.parameters(), *causal.parameters()):
        torch.nn.init.normal_(parameter, generator=generator)
    teacher.save_pretrained(folder / "teacher")
    export_transformer(causal, folder / "causal.pt", "self-forcing")
    export_transformer(teacher.half(), folder / "half.safetensors", "wan")
    state = load_transformer(TEACHER, TRANSFORMER).state_dict()
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    lora = {
        "transformer.blocks.0.attn1.to_q.lora_A.weight": torch.full((2, 64), 0.1),
        "transformer.blocks.0.attn1.to_q.lora_B.weight": torch.full((64, 2), 0.1),
    }
    save_file(lora, folder / "lora.safetensors")
    state = load_file(folder / "teacher" / "diffusion_pytorch_model.safetensors")
    state["blocks.0.ffn.net.2.weight"][[0, -1, -1], [0, 0, 1]] = torch.nan
    save_file(state, folder / "nan.safetensors")
    return folder


CAUSAL_WAN = {"name": "self-forcing"}


def runs(files: Path) -> dict[str, dict[str, Any]]:
    """Of every kind of file and of roles that have weights in common."""
    two = {"name": "one-network", "frozen": True}
    whole, half = ({"weights": str(files / name)} for name in ("teacher", "half.safetensors"))
    adapted = {"student": {"rank": 4}, "fake_score": {"rank": 4}}
    return {
        "diffusers": run_of({"name": "wan", "options": whole}),
        "wan-half-bf16": run_of({"name": "wan", "options": half}, two, precision="bf16"),
        "self-forcing-bf16": run_of(
            CAUSAL_WAN | {"options": whole, "initial": str(files / "causal.pt")},
            two,
            precision="bf16",
        ),
        "lora": run_of(CAUSAL_WAN | {"options": whole, "initial": "teacher"}, lora=adapted),
        "lora-no-files": run_of(
            CAUSAL_WAN | {"size": "test-tiny", "initial": "teacher"}, lora=adapted
        ),
        # an adapted student beside a fake score whose own weights are trained, in float32
        "lora-bf16": run_of(
            {"name": "wan", "options": whole}, lora={"student": {"rank": 4}}, precision="bf16"
        ),
    }


def single(files: Path) -> dict[str, dict[str, Any]]:
    """Of one network, without its average; deeper ones where it counts what they hold."""
    whole = {"options": {"weights": str(files / "teacher")}}
    old = {"size": "digits", "options": {"weights": str(files / "old.pt")}}
    lora = ["teacher", str(files / "lora.safetensors")]
    every = {
        "one": run_of({"name": "wan", "size": "digits"}, "one-network"),
        "random": run_of({"name": "wan"}, {"name": "one-network", "start": "random"}),
        "old": run_of({"name": "wan"} | old, "one-network"),
        "merged": run_of(CAUSAL_WAN | whole | {"initial": lora}, "one-network"),
        "no-files": run_of({"name": "wan", "size": "test-tiny"}, "one-network"),
    }
    for name, run in every.items():
        if name != "random":  # whose average is its copy
            run["training"]["ema"] = None
    return every


#: Runs whose network the first process makes whole, and what it says.
WHOLE = {
    "old": "old.pt is a pickle that cannot be mapped",
    "merged": "lora.safetensors is merged into them (backbone.initial)",
    "no-files": "its size does not say in which files they are",
}


@pytest.fixture(scope="module")
def together(files, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    broken = {"name": "wan", "options": {"weights": str(files / "nan.safetensors")}}
    every = runs(files) | single(files) | {"nan": run_of(broken, "one-network")}
    jobs = [
        (run | {"execution": {"shard": 2, "micro_batch": 1}}, str(folder / name))
        for name, run in every.items()
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    run_in_two_processes(Path(__file__).parent / "sliced_runs.py", folder / "jobs.json")
    return folder


@pytest.mark.parametrize("name", [*runs(Path()), *single(Path())])
def test_the_weights_are_bitwise_those_of_one_process(name, files, together):
    alone, _ = make_networks((runs(files) | single(files))[name], ZOO, 1, 0)
    own = {id(p): p.numel() * p.element_size() for n in alone.values() for p in n.parameters()}
    for role, network in alone.items():
        zero, one = (load_file(together / name / f"{role}-{rank}.safetensors") for rank in (0, 1))
        weights, buffers = (
            dict(of) for of in (network.named_parameters(), network.named_buffers())
        )
        assert zero.keys() == one.keys() == weights.keys() | buffers.keys(), role
        for key, value in weights.items():  # rows of the first process, then of the second
            assert zero[key].dtype == one[key].dtype == value.dtype, (role, key)
            assert torch.equal(torch.cat([zero[key], one[key]]), value), (role, key)
        for key, value in buffers.items():
            assert torch.equal(zero[key], value) and torch.equal(one[key], value), (role, key)
    for rank in range(2):  # the others' last rows may be fewer
        held = json.loads((together / name / f"numbers-{rank}.json").read_text())["held"]
        assert held == pytest.approx(sum(own.values()) / 2, rel=0.05)


@pytest.mark.parametrize("name", [*runs(Path()), *single(Path())])
def test_the_first_process_alone_makes_whole_networks(name, together):
    """And only where weights are in no file as they are."""
    made = [
        json.loads((together / name / f"numbers-{n}.json").read_text())["whole"] for n in (0, 1)
    ]
    wanted = {"lora-no-files": 2}.get(name, int(name in (*WHOLE, "random")))  # two starts
    assert made == [wanted, 0]


def test_a_process_allocates_its_part(together):
    """And a weight at a time. torch's profiler counts a mapped file, of which nothing is read yet;
    of what the first process sends, gloo gives its buffers back when it likes."""
    mapped = sum(file.stat().st_size for file in TEACHER.glob("*.safetensors"))
    for rank in range(2):
        numbers = json.loads((together / "one" / f"numbers-{rank}.json").read_text())
        assert numbers["most"] - mapped < 1.2 * numbers["held"]
    seen = json.loads((together / "old" / "numbers-0.json").read_text())
    assert seen["most"] > 2.8 * seen["held"]  # a whole network beside the part


@pytest.mark.parametrize("name", WHOLE)
def test_it_is_said_where_a_whole_network_is_made(name, together):
    said = [(together / name / f"said-{rank}.txt").read_text() for rank in range(2)]
    assert said[0].count("note:") == 1 and WHOLE[name] in said[0] and not said[1]


def test_numbers_that_are_not_finite_are_found_in_all_parts(together):
    """Of one tensor, one in the first process's rows and two in the second's."""
    for rank in range(2):
        said = (together / "nan" / f"error-{rank}.txt").read_text()
        assert "nan.safetensors: 'transformer.blocks.0.ffn.net.2.weight' has 3 of" in said


def test_the_plan_counts_a_weight_at_a_time(files):
    backbone = {"name": "wan", "options": {"weights": str(files / "teacher")}}
    run = run_of(backbone, "teacher-forcing")
    run |= {"execution": {"shard": 2, "micro_batch": 1}}
    plan = plan_run(resolve(run, ZOO, "test"), ZOO, "cpu", processes=2)
    (network, _) = make_networks(run_of(backbone, "one-network"), ZOO, 1, 0)
    largest = max(p.numel() for p in network["student"].parameters())
    assert plan.loading * GIB == 4 * largest


def test_a_backbone_that_replaces_network_alone_is_not_loaded_by_slices():
    class Other(WanBackbone):
        def network(self, start):
            return super().network(start)

    roles = {"student": NetworkSpec("student", learning_rate=1e-3)}
    wan, other = (kind(WanBackboneConfig(), ZOO) for kind in (WanBackbone, Other))
    assert can_load_slices(wan, roles) and not can_load_slices(other, roles)
