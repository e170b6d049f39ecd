"""The page FULL_SIZE.md: its tables are the plan's, and its scripts start runs that can be planned.

`python -m tests.plugins.test_wan_full_size` prints the tables.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.study.schema import load_study, read_study, runs_of, select_arms
from salt_zoo.cli import main
from salt_zoo.config.run import Resolved, resolve
from salt_zoo.config.training import OptimizerConfig
from salt_zoo.core.networks.condition import example
from salt_zoo.planning.codecs import codec_gib
from salt_zoo.planning.plan import Plan, plan_run
from salt_zoo.plugin.manager import Zoo, load_zoo
from salt_zoo_wan.experts.idle import few_tokens

FOLDER = Path(__file__).resolve().parents[2] / "plugins" / "salt_zoo_wan"
PAGE = FOLDER / "FULL_SIZE.md"
EXAMPLES = FOLDER / "examples"

LARGE = {"name": "wan", "size": "wan2.1-t2v-14b"}
TWO = {"name": "wan", "size": "wan2.2-t2v-a14b"}
#: Moments of 8 bits for both trained roles, and what is not trained in main memory.
LEAN = {"name": "adamw8bit"}
OFFLOAD = ["frozen", "averages"]
#: What the table plans: its words, study, arm, and the backbone where it is another. Each is also
#: planned with `LEAN` and with `OFFLOAD`.
ROWS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("1.3B + 1.3B + 1.3B", "wan_t2v", "dmd-4", {}),
    ("1.3B + 1.3B + 14B, autoregressive", "self_forcing_1.3b", "self-forcing", {}),
    ("14B + 14B + 14B", "wan_t2v", "dmd-4", LARGE),
    ("14B + 14B + 14B, image-to-video", "wan_i2v", "dmd-4", {}),
    ("A14B + A14B + A14B, two experts each", "wan_t2v", "dmd-4", TWO),
]
GPUS = (1, 8, 64)
#: Of the table of shared videos, on 8 GPUs: the study's arm with a student of 14 B.
CAUSAL = {"size": "wan2.1-t2v-14b", "teacher": None}
SEQUENCES = (1, 2, 4, 8)

pytestmark = pytest.mark.slow


def run_of(study: str, arm: str, backbone: dict[str, Any], zoo: Zoo) -> Resolved:
    content, path = read_study(study)
    content["base"]["backbone"] |= backbone
    for key in ("hypotheses", "claims", "primary_metric"):
        content.pop(key, None)
    run = runs_of(select_arms(load_study(content, str(path)), [arm], study), zoo, study)[arm]
    # memory depends on no number of updates, and few are counted quickly
    training = run.config.training.model_copy(update={"updates": 2})
    return replace(run, config=run.config.model_copy(update={"training": training}))


def lean(run: Resolved) -> Resolved:
    training = run.config.training
    roles = {"student", "fake_score"}
    optimizers = {
        role: training.optimizers.get(role, OptimizerConfig()).model_copy(update=LEAN)
        for role in roles
    }
    training = training.model_copy(update={"optimizers": optimizers})
    return replace(run, config=run.config.model_copy(update={"training": training}))


@pytest.mark.parametrize("gpus", [1, 8])
def test_two_experts_take_the_activations_of_one(gpus, zoo):
    """Weights, gradients and optimizer states are of both, and a pass is of one, sharded, too: what
    an expert without a row then takes is measured in `test_wan_idle_expert.py`."""

    def plan(backbone: dict[str, Any]) -> Plan:
        run = run_of("wan_t2v", "dmd-4", backbone, zoo)
        execution = run.config.execution.model_copy(update={"shard": gpus})
        run = replace(run, config=run.config.model_copy(update={"execution": execution}))
        return plan_run(run, zoo, "cuda", gpus)

    both, one = plan(TWO), plan({**TWO, "options": {"expert": "high"}})
    roles = ("student", "teacher", "fake_score", "student_ema")
    for part in (*(f"weights {role}" for role in roles), "gradients", "optimizer states"):
        assert both.memory[part] == pytest.approx(2 * one.memory[part]), part
    assert both.memory["activations"] == one.memory["activations"]
    assert both.parameters["student"] == 2 * one.parameters["student"]
    assert (both.passes, both.flops) == (one.passes, one.flops)
    parts = [[part for each in plan.downloads for part in each["parts"]] for plan in (both, one)]
    assert ["transformer_2" in found for found in parts] == [True, False]


def test_the_page_says_what_an_expert_without_a_row_takes(zoo):
    """In a process of a sharded run that has none for it."""
    configured = zoo.backbones.configure(
        "wan", {"size": TWO["size"], "options": {"expert": "high"}}, "test"
    )
    backbone = zoo.backbones.create("wan", configured, zoo).to("meta")
    with torch.device("meta"):
        network = backbone.network("random")
    network.transformer.blocks = network.transformer.blocks[:4]  # all of 40 take the same
    x, t = torch.empty(1, *backbone.latent_shape, device="meta"), torch.empty(1, device="meta")
    whole, flops = (x, t, example(backbone)), []
    for given in (whole, few_tokens(*whole, network.tokens_per_frame, 1)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(*given)
        flops.append(counter.get_total_flops())
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"and {flops[1] / flops[0]:.1%} of its FLOPs" in page


def table(zoo: Zoo) -> str:
    """Rows of roles, columns of GPUs: GiB at the fullest moment, sharded over a machine of 8, and
    over all of 64."""
    head = ["student + fake score + teacher", "study, arm", "1 GPU", "8", "64, shard 8", "64"]
    lines = [head, ["---"] * len(head)]
    for words, study, arm, backbone in ROWS:
        plain = run_of(study, arm, backbone, zoo)
        for run, offload, first in (
            (plain, [], [words, f"`{study}`, `{arm}`"]),
            (lean(plain), [], ["", "with `adamw8bit`"]),
            (lean(plain), OFFLOAD, ["", "and offloaded"]),
        ):
            cells = first
            for gpus, shard in ((1, 1), (8, 8), (64, 8), (64, 64)):
                changes = {"shard": shard, "offload": offload}
                execution = run.config.execution.model_copy(update=changes)
                there = replace(run, config=run.config.model_copy(update={"execution": execution}))
                cells.append(f"{plan_run(there, zoo, 'cuda', gpus).peak:.1f}")
            lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table_of_sequences(zoo: Zoo) -> str:
    """GiB of one of 8 GPUs: activations, KV memory, and all at the fullest moment."""
    head = ["`sequence`", *map(str, SEQUENCES)]
    lines = [head, ["---"] * len(head)]
    run, plans = run_of("self_forcing_1.3b", "self-forcing", CAUSAL, zoo), []
    for sequence in SEQUENCES:
        execution = run.config.execution.model_copy(update={"shard": 8, "sequence": sequence})
        there = replace(run, config=run.config.model_copy(update={"execution": execution}))
        plans.append(plan_run(there, zoo, "cuda", 8))
    for part in ("activations", "KV memory"):
        lines.append([part, *(f"{plan.memory[part]:.1f}" for plan in plans)])
    lines.append(["fullest moment", *(f"{plan.peak:.1f}" for plan in plans)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {"plan": table, "sequence": table_of_sequences}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_what_the_plan_says(name, zoo):
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"<!-- table: {name} -->\n(.*?)\n\n", page, re.S)
    assert found and found[1] == TABLES[name](zoo)


def test_the_page_says_what_stays_on_the_gpu(zoo):
    def gib(size, part, **options):
        content = {"size": size, "options": options}
        configured = zoo.backbones.configure("wan", content, "test")
        backbone = zoo.backbones.create("wan", configured, zoo)
        assert part in backbone.codecs_of("image")
        return f"{codec_gib(backbone)[part]:.1f}"

    image, experts = "wan2.1-i2v-14b-480p", "wan2.2-i2v-a14b"
    found = (
        f"({gib(image, 'vae')} + {gib(image, 'image_encoder')} GiB of `wan2.1-i2v`; the VAE alone "
        f"is {gib(experts, 'vae', expert='low')} of A14B and "
        f"{gib('wan2.2-ti2v-5b', 'vae', from_image=True)} of the 5 B)"
    )
    assert found in " ".join(PAGE.read_text(encoding="utf-8").split())


def test_the_run_is_the_arm_of_the_study(zoo):
    content = yaml.safe_load((EXAMPLES / "dmd_1.3b.yaml").read_text(encoding="utf-8"))
    made = resolve(content, zoo, "example").plain()
    content, path = read_study("wan_t2v")
    arm = runs_of(load_study(content, str(path)), zoo, "wan_t2v")["dmd-4"].plain()
    for key in ("method", "backbone", "dataset", "training", "execution"):
        assert made[key] == arm[key], key


@pytest.mark.parametrize(
    ("script", "processes"), [("train_8_gpus.sh", 8), ("train_64_gpus.slurm", 64)]
)
def test_a_script_starts_a_run_that_can_be_planned(
    script, processes, tmp_path, capsys, monkeypatch, zoo
):
    """The script runs with stand-ins for Slurm and torchrun, which tell what they are given."""
    path = EXAMPLES / script
    assert subprocess.run(["bash", "-n", str(path)]).returncode == 0
    for name, text in {
        "torchrun": 'printf "%s\\n" "$@" > "$TOLD"',
        "srun": 'exec "$@"',
        "scontrol": "echo node1; sleep 0.2; echo node2",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", path.read_text(), re.M))
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node[1-8]"}
    environment = os.environ | slurm | {
        "TOLD": str(tmp_path / "told"), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_NUM_NODES": asked.get("nodes", "1"),
    }  # fmt: skip
    subprocess.run(["bash", str(path)], check=True, cwd=EXAMPLES, env=environment)
    told = (tmp_path / "told").read_text().splitlines()
    options = dict(zip(told[::2], told[1::2], strict=False))
    each = int(options["--nproc_per_node"])
    assert options.get("--rdzv_endpoint", "node1:29500") == "node1:29500"
    assert each * int(options.get("--nnodes", "1")) == processes
    assert int(asked.get("gpus-per-node", each)) == each
    given = told[told.index("-m") + 2 :]
    assert told[told.index("-m") + 1] == "salt_zoo"
    monkeypatch.chdir(EXAMPLES)

    def load(plugins):
        assert not plugins  # the script names none
        return zoo  # what is measured is known

    monkeypatch.setattr("salt_zoo.cli.load_zoo", load)
    few = ["--set", "training.updates=2"]
    assert main([*given, *few, "--dry-run", "--gpus", str(processes), "--memory", "80"]) == 0
    text = capsys.readouterr().out
    assert f"fits {processes} GPUs of 80 GiB" in text and "torchrun --nproc_per_node 8" in text


if __name__ == "__main__":
    for made in TABLES.values():
        print(made(load_zoo()), end="\n\n")
