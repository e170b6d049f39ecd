"""Roles that are no velocity networks: how they are made, trained, saved, resumed and planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from torch import nn

from salt_zoo.config.run import Resolved, resolve
from salt_zoo.conformance import check_method
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.precision import with_precision
from salt_zoo.core.protocols import NetworkSpec
from salt_zoo.costs.passes import count_forward_passes
from salt_zoo.planning.plan import GIB, make_plan
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.plugin.registration.registry import merge
from salt_zoo.rollout.objectives import Objectives
from salt_zoo.training.launch import train
from tests.heads.plugin import Config, Critic
from tests.one_update import names, recorded_gradients

ZOO = load_zoo(["tests.heads.plugin", "tests.blocks.plugin", "tests.gaussian.plugin"])
DMD = {
    "name": "dmd",
    "learning_rate": 1e-3,
    "fake_score": {"updates": 2, "learning_rate": 1e-3},
    "objectives": {"distribution-matching": {}, "critic": {}},
}
#: A method without rollouts, with one further term.
CONSISTENCY = {
    "name": "consistency",
    "learning_rate": 1e-3,
    "objectives": {"critic": {}},
    "rollout": {"steps": 2},
}


def run_of(
    method: dict[str, Any] = DMD, seed: int = 0, micro_batch: int | None = None, **training: Any
) -> Resolved:
    given = {"updates": 3, "batch_size": 2, "trackers": [], "checkpoint_every": 1, "log_every": 1}
    content = {
        "seed": seed,
        "method": method,
        "backbone": "toy-blocks",
        "dataset": "toy-blocks",
        "training": {**given, **training},
        "execution": {"micro_batch": micro_batch},
    }
    return resolve(content, ZOO, "test")


def trained(folder: Path, *arguments: Any, **options: Any) -> Any:
    return train(run_of(*arguments, **options), folder, ZOO, "cpu")


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("method", [DMD, CONSISTENCY], ids=lambda method: method["name"])
def test_a_method_with_them_keeps_every_promise(method):
    """Trained roles change, the frozen one does not; a resumed run is bitwise; the plan is true."""
    trainer = check_method(method, "toy-blocks", "toy-blocks", ZOO, updates=3)
    assert {"critic", "critic_mean", "lens"} < set(trainer.networks)
    assert trainer.method_state()["critic"]["updates"] == (6 if method is DMD else 3)


@pytest.mark.parametrize("method", [DMD, CONSISTENCY], ids=lambda method: method["name"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_reaches_every_tensor(method, precision, tmp_path):
    with recorded_gradients() as steps:
        trainer = trained(tmp_path, method, precision=precision)
    known = names(trainer.networks)
    own = [step for step in steps if any(known[key].startswith("critic: ") for key in step)]
    assert len(own) == 3 * (2 if method is DMD else 1)
    for step in own:
        for key, gradient in step.items():
            assert gradient is not None and gradient.any(), known[key]
    assert trainer.networks["critic"].precision == precision
    assert weights(trainer.networks["critic"]).dtype == torch.float32


def test_the_critic_moves_the_student(tmp_path):
    """Its term reaches the student, and the videos of its update are those of the fake score's."""
    without = merge(DMD, {"objectives": {"critic": None}})
    one, other = (trained(tmp_path / name, method) for name, method in
                  (("with", DMD), ("without", without)))  # fmt: skip
    assert not torch.equal(weights(one.networks["student"]), weights(other.networks["student"]))
    fake = [run.history[0]["fake_score/loss"] for run in (one, other)]
    assert (
        fake[0] == fake[1] > 0
    )  # the critic is no part of the fake score's loss, nor of its draws
    passes = [run.counter.counts["student"]["forward"] for run in (one, other)]
    assert passes[0] == passes[1]


def test_weights_are_drawn_by_seed_and_role(tmp_path):
    first, again, other = (
        trained(tmp_path / name, seed=seed, updates=1) for name, seed in
        (("first", 0), ("again", 0), ("other", 1))
    )  # fmt: skip
    lenses = [weights(run.networks["lens"]) for run in (first, again, other)]
    assert torch.equal(lenses[0], lenses[1]) and not torch.equal(lenses[0], lenses[2])
    assert torch.equal(*(weights(run.networks["critic"]) for run in (first, again)))
    objective = Critic(Config(), None)
    roles = {name: NetworkSpec(factory=objective.lens) for name in ("a", "b")}
    from salt_zoo.training.state.networks import Networks

    every = {"student": NetworkSpec("student", learning_rate=1e-3), **roles}
    networks = Networks(every, first.backbone, first.config, 0)
    assert not torch.equal(weights(networks["a"]), weights(networks["b"]))


def test_an_average_follows_weights_and_statistics(tmp_path):
    trainer = trained(tmp_path, updates=1)
    critic, mean = trainer.networks["critic"], trainer.networks["critic_mean"]
    assert critic.norm.num_batches_tracked == 2  # of its own two updates
    assert mean.norm.num_batches_tracked == 3  # and one more in the student's, by the term
    objective = trainer.method.objectives["critic"]
    assert objective.updates == 2
    difference = (weights(critic) - weights(mean)).abs()
    assert 0 < difference.max() < 0.01  # two updates of 1e-2, halved twice


def test_a_checkpoint_has_what_is_trained_and_the_state(tmp_path):
    trained(tmp_path)
    folder = tmp_path / "checkpoints" / "step-000003"
    assert sorted(path.name for path in folder.iterdir()) == [
        "critic.safetensors",
        "critic_mean.safetensors",
        "fake_score.safetensors",
        "method.pt",
        "optimizers.pt",
        "state.json",
        "student.safetensors",
        "student_ema.safetensors",
    ]
    saved = safetensors.torch.load_file(folder / "critic.safetensors")
    assert torch.equal(saved["enter.weight"], saved["again.weight"])  # tied, and kept twice
    (state,) = torch.load(folder / "method.pt", weights_only=True)
    assert state["critic"]["updates"] == 6
    assert "method.pt" in json.loads((folder / "state.json").read_text())["files"]


def test_a_state_that_is_lost_changes_a_resumed_run():
    """So that the promise above can be broken: the same objective without its state."""

    class Forgetful(Critic):
        state_dict = load_state_dict = None  # type: ignore[assignment]

    zoo = load_zoo(["tests.heads.plugin", "tests.blocks.plugin"])
    zoo.objectives.add("forgetful", Forgetful, "it forgets")
    method = merge(DMD, {"objectives": {"critic": None, "forgetful": {}}})
    with pytest.raises(AssertionError, match="of a resumed run is not that of an uninterrupted"):
        check_method(method, "toy-blocks", "toy-blocks", zoo, updates=3)


def test_it_has_an_optimizer_of_its_own(tmp_path):
    optimizers = {"critic": {"learning_rate": 0.5, "betas": [0.9, 0.99], "weight_decay": 0.0}}
    schedule = {"warmup": 3}
    trainer = trained(tmp_path, updates=1, optimizers=optimizers, schedule=schedule, clip=1e-3)
    (group,) = trainer.networks.optimizers["critic"][0].param_groups
    assert group["lr"] == 0.5 / 4 and group["betas"] == (0.9, 0.99)
    assert trainer.history[0]["critic/gradient_norm"] > 1e-3
    named = yaml.safe_load((tmp_path / "run.yaml").read_text())["training"]["optimizers"]
    assert named["critic"]["learning_rate"] == 0.5
    with pytest.raises(ZooError, match=r"optimizers\.lens: the method trains no network of that"):
        trained(tmp_path / "lens", optimizers={"lens": {"learning_rate": 1.0}})


def test_accumulation_is_the_same_update(tmp_path):
    """Without batch statistics, which are those of a micro-batch."""
    method = merge(DMD, {"fake_score": {"updates": 1}})
    one, two = (
        trained(tmp_path / str(micro), method, updates=1, batch_size=4, micro_batch=micro)
        for micro in (4, 2)
    )
    assert one.method.objectives["critic"].updates == 1
    assert two.method.objectives["critic"].updates == 2
    norms = [run.history[0]["fake_score/gradient_norm"] for run in (one, two)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert one.counter.counts["critic"] == two.counter.counts["critic"]


def test_a_plan_by_hand():
    """Toy latents have 2 channels, 6 frames of 2 x 2: 24 places a video."""
    resolved = run_of(batch_size=4, ema=None)
    method = ZOO.methods.create("dmd", resolved.method, ZOO)
    backbone = ZOO.backbones.create("toy-blocks", resolved.backbone, ZOO)
    counted = count_forward_passes(method, backbone, 3)
    # two fake-score updates see a real and a fake video each; the lens the student's, too
    assert counted.counts["critic"] == {"forward": 4.0, "backward": 4.0}
    assert counted.counts["critic_mean"] == {"forward": 1.0, "backward": 1.0}
    assert counted.counts["lens"] == {"forward": 5.0, "backward": 1.0}
    plan = make_plan(backbone, method, resolved.config.training, device="cpu", counted=counted)
    size = 4 + 4 + 2 + 2 + 1  # norm, tied matrix, two biases, last layer
    assert plan.parameters["critic"] == plan.parameters["critic_mean"] == size + 2
    fake = 4 * plan.parameters["fake_score"]
    assert plan.memory["gradients"] == pytest.approx((fake + 4 * (size + 2)) / GIB)
    assert plan.passes["critic"]["forward"] == 16
    (kind,) = (kind for kind in counted.kinds["critic"])
    matrices = 2 * 24 * (2 * 2 + 2 * 2 + 2)  # multiply and add, at every place
    assert kind.forward == matrices
    assert kind.backward == 2 * matrices  # of weights and of inputs
    assert kind.held > 24 * 2 * 4  # at least the normed input, in float32


def test_what_passes_return_is_float32():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, inputs: dict[str, torch.Tensor]) -> Any:
            out = self.layer(inputs["x"])
            return {"out": out, "seen": [out.dtype, (out,)], "index": torch.tensor([1])}

    network = with_precision(Two(), "bf16", "cpu")
    found = network({"x": torch.zeros(2, 3)})
    assert found["seen"][0] == torch.bfloat16
    assert found["out"].dtype == found["seen"][1][0].dtype == torch.float32
    assert found["index"].dtype == torch.int64


def test_a_name_that_is_taken():
    made = Objectives({"critic": Critic(Config(), None)})
    student = NetworkSpec("student", learning_rate=1e-3)
    assert set(made.beside({"student": student})) == {"student", "critic", "critic_mean", "lens"}
    assert made.trained == ("critic",) and made.needs_data
    with pytest.raises(ZooError, match=r"^objective 'critic': there is a role 'lens' already"):
        made.beside({"student": student, "lens": student})


def test_a_term_that_is_off_changes_nothing(tmp_path):
    """Of a method without rollouts: bitwise the method without the option."""
    plain = {key: CONSISTENCY[key] for key in ("name", "learning_rate")}
    off = {**CONSISTENCY, "objectives": {"critic": {"weight": 0.0}}}
    one, other = (
        trained(tmp_path / name, method) for name, method in (("plain", plain), ("off", off))
    )
    assert list(one.networks) == list(other.networks)
    assert torch.equal(weights(one.networks["student"]), weights(other.networks["student"]))
    assert one.history[-1]["student/loss"] == other.history[-1]["student/loss"]


def test_a_term_that_needs_a_fake_score_says_so(tmp_path):
    method = {**CONSISTENCY, "objectives": {"distribution-matching": {}}}
    with pytest.raises(ZooError, match="distribution-matching: the method has no role 'fake_score"):
        trained(tmp_path, method)
