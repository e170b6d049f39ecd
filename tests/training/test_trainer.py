"""The training loop: gradients, schedules, averages, precision, trackers, costs."""

from __future__ import annotations

import copy
import math
import weakref

import pytest
import torch
from torch import nn

from salt_zoo.config.training import OptimizerConfig, ScheduleConfig
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.precision import precision_of
from salt_zoo.costs.counter import PassCounter
from salt_zoo.training.state.memoryless_adamw import MemorylessAdamW
from salt_zoo.training.state.optimizers import make_optimizers, schedule_factor


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_accumulation_changes_nothing_but_rounding(train, tmp_path):
    # Muon and AdamW divide by the gradient's size, so that rounding shows most in tiny gradients:
    # the weights agree on average, the losses and the norms of the gradients everywhere
    runs = [
        train(tmp_path / str(micro), training={"batch_size": 4}, execution={"micro_batch": micro})
        for micro in (None, 2, 1)
    ]
    for run in runs[1:]:
        for one, other in zip(runs[0].history, run.history, strict=True):
            assert other["student/loss"] == pytest.approx(one["student/loss"], rel=1e-4)
            norm = one["student/gradient_norm"]
            assert other["student/gradient_norm"] == pytest.approx(norm, rel=1e-3)
        difference = weights(runs[0].networks["student"]) - weights(run.networks["student"])
        assert difference.abs().mean() < 1e-5  # four updates of 1e-3


def test_a_batch_that_cannot_be_split(train, tmp_path):
    with pytest.raises(
        ZooError, match=r"micro_batch: training.batch_size 3 .* in passes of 2; write"
    ):
        train(tmp_path, training={"batch_size": 3}, execution={"micro_batch": 2})


def test_a_run_is_reproducible_and_its_seed_matters(digits_alone, train, tmp_path):
    again, other = (train(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 1)))
    first, again, other = (weights(run.networks["student"]) for run in (digits_alone, again, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_average_follows_the_student(train, tmp_path):
    """`mean = decay * mean + (1 - decay) * weights`, and a plain copy before its start."""
    seen = []
    trainer = None

    def progress(step, updates, logs):
        seen.append(step)

    training = {"updates": 1, "ema": {"decay": 0.9, "start": 0}}
    trainer = train(tmp_path / "a", progress=progress, training=training)
    start = weights(trainer.backbone.network("student"))
    student = weights(trainer.networks["student"])
    average = weights(trainer.networks["student_ema"])
    torch.testing.assert_close(average, 0.9 * start + 0.1 * student, rtol=1e-5, atol=1e-7)
    assert trainer.networks.eval_network is trainer.networks["student_ema"]

    trainer = train(tmp_path / "b", training={"ema": {"decay": 0.9, "start": 100}})
    assert torch.equal(
        weights(trainer.networks["student"]), weights(trainer.networks["student_ema"])
    )
    trainer = train(tmp_path / "c", training={"ema": None})
    assert list(trainer.networks) == ["student"]
    assert trainer.networks.eval_network is trainer.networks["student"]


def test_only_the_role_of_the_turn_takes_gradients(train, tmp_path):
    trainer = train(tmp_path, method={"name": "dmd", "steps": 2, "fake_score": {"updates": 1}})
    for network in trainer.networks.values():
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert all(parameter.grad is None for parameter in network.parameters())
    teacher = trainer.backbone.network("teacher")
    frozen = [name for name, role in trainer.networks.roles.items() if role.learning_rate is None]
    for name in frozen:
        if trainer.networks.roles[name].ema_of is None:
            assert torch.equal(weights(trainer.networks[name]), weights(teacher))


def test_clipping(train, tmp_path):
    """The norm is logged as it was; AdamW is blind to a gradient's size, but not Adam's epsilon."""
    loose = train(tmp_path / "loose", training={"updates": 1, "clip": 1e6})
    tight = train(tmp_path / "tight", training={"updates": 1, "clip": 1e-9})
    norm = loose.history[0]["student/gradient_norm"]
    assert tight.history[0]["student/gradient_norm"] == norm > 1e-3
    start = weights(loose.backbone.network("student"))
    moved = [(weights(run.networks["student"]) - start).norm() for run in (loose, tight)]
    assert moved[1] < 0.1 * moved[0]


@pytest.mark.parametrize(
    ("config", "steps", "expected"),
    [
        (ScheduleConfig(), [0, 50, 99], [1, 1, 1]),
        (ScheduleConfig(warmup=3), [0, 1, 2, 3, 4], [0.25, 0.5, 0.75, 1, 1]),
        (ScheduleConfig(decay_from=0.5, final=0.0), [49, 50, 75, 100], [1, 1, 0.5, 0]),
        (ScheduleConfig(decay_from=0.0, final=0.2), [0, 50, 100], [1, 0.6, 0.2]),
    ],
)
def test_the_schedule(config, steps, expected):
    assert [schedule_factor(step, 100, config) for step in steps] == pytest.approx(expected)


def test_the_schedule_reaches_the_optimizers(train, tmp_path):
    schedule = {"decay_from": 0.5, "final": 0.0}
    trainer = train(tmp_path, training={"updates": 4, "schedule": schedule})
    (optimizer,) = trainer.networks.optimizers["student"]
    factor = 0.5 * (1 + math.cos(math.pi * 0.5))  # of the last update, halfway down
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor)


def test_muon_takes_the_matrices_of_the_blocks(teacher):
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    network = WanTransformer3DModel.from_pretrained(teacher)
    adamw, muon = make_optimizers(network, OptimizerConfig(name="muon"), 1e-4)
    assert isinstance(muon, torch.optim.Muon) and isinstance(adamw, MemorylessAdamW)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    matrices = [names[id(p)] for p in muon.param_groups[0]["params"]]
    rest = [names[id(p)] for p in adamw.param_groups[0]["params"]]
    assert sorted(matrices + rest) == sorted(names.values())
    assert all("blocks." in name and name.endswith("weight") for name in matrices)
    assert adamw.param_groups[0]["lr"] == 1e-4 and muon.param_groups[0]["lr"] == 3e-3
    (only,) = make_optimizers(network, OptimizerConfig(learning_rate=5e-4), 1e-4)
    assert only.param_groups[0]["lr"] == 5e-4
    assert len(only.param_groups[0]["params"]) == len(names)


def test_an_optimizer_for_a_role_that_is_not_trained(train, tmp_path):
    with pytest.raises(ZooError, match=r"training\.optimizers\.studnet.*did you mean 'student'"):
        train(tmp_path, training={"optimizers": {"studnet": {}}})


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_precision(precision, train, tmp_path):
    trainer = train(tmp_path, training={"precision": precision})
    wanted = "bf16" if precision == "bf16" else "fp32"  # auto is fp32 on a CPU
    for role, network in trainer.networks.items():
        assert precision_of(network) == wanted
        # teacher-forcing trains one network, whose master weights are whole in any case
        assert {p.dtype for p in network.parameters()} == {torch.float32}, role
    assert trainer.accelerator.mixed_precision == "no"  # the trainer's business it is not
    assert all(math.isfinite(entry["student/loss"]) for entry in trainer.history)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("bf16", "bfloat16")])
def test_quality_is_measured_in_the_precision_of_training(
    precision, dtype, train, matrix_layers, tmp_path
):
    quality = {"every": 1, "prompts": 2, "steps": [1], "metrics": ["digits-rigidity"]}
    trainer = train(tmp_path, quality=quality, training={"updates": 1, "precision": precision})
    matrix_layers.clear()
    trainer.evaluate(trainer.networks, 1)  # of the average, a master in float32
    assert matrix_layers == {(torch.float32, getattr(torch, dtype))}


def test_bf16_is_near_fp32_but_not_it(train, tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        trainer = train(tmp_path / precision, training={"updates": 1, "precision": precision})
        losses.append(trainer.history[0]["student/loss"])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_gradient_checkpointing_changes_nothing(digits_alone, train, tmp_path):
    checkpointed = train(tmp_path / "checkpointed", execution={"gradient_checkpointing": True})
    torch.testing.assert_close(
        weights(digits_alone.networks["student"]),
        weights(checkpointed.networks["student"]),
        rtol=1e-5,
        atol=1e-6,
    )


def test_tensorboard(train, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tmp_path, training={"trackers": ["tensorboard"]})
    (path,) = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(path)).Reload()
    assert [event.step for event in events.Scalars("student/loss")] == [1, 2, 3, 4]


def test_quality_and_the_history(digits_alone, train, tmp_path):
    quality = {"every": 2, "prompts": 2, "steps": [1, 2], "metrics": ["digits-rigidity"]}
    trainer = train(tmp_path, quality=quality, training={"log_every": 3})
    assert [entry["step"] for entry in trainer.history] == [2, 3, 4]
    measured = [key for key in trainer.history[0] if key.startswith("quality/")]
    assert measured == ["quality/digits-rigidity@1", "quality/digits-rigidity@2"]
    # measuring is no cost of the method, and does not change its training
    assert trainer.cost()["passes"] == digits_alone.cost()["passes"]
    assert torch.equal(
        weights(trainer.networks["student"]), weights(digits_alone.networks["student"])
    )


def test_costs(digits_alone):
    cost = digits_alone.cost()
    assert cost["updates"] == 4
    assert digits_alone.seconds > 0 and cost["seconds"] == round(digits_alone.seconds, 1)
    assert cost["passes"]["student"] == {"forward": 8.0, "backward": 8.0}
    assert cost["flops"] > 8 * 2 * len(weights(digits_alone.networks["student"]))  # of each weight


def test_costs_are_counted_on_networks_without_data(digits_alone, monkeypatch):
    """A copy of each network would take as much memory as the training at the end of a run."""
    trainer, made = digits_alone, []
    network = type(trainer.backbone).network

    def spy(self, start):
        made.append(network(self, start))
        return made[-1]

    monkeypatch.setattr(type(trainer.backbone), "network", spy)
    deepcopy = copy.deepcopy

    def copied(one, *arguments):
        if isinstance(one, nn.Module):
            assert {p.device.type for p in one.parameters()} == {"meta"}
        return deepcopy(one, *arguments)

    monkeypatch.setattr("copy.deepcopy", copied)
    # other tests may have counted those of the same backbone
    for known in ("salt_zoo.core.base.facts._OF", "salt_zoo.core.methods.meta._KNOWN"):
        monkeypatch.setattr(known, weakref.WeakKeyDictionary())
    assert trainer.cost()["flops"] > 0
    assert made and {p.device.type for one in made for p in one.parameters()} == {"meta"}
    assert trainer.backbone.device.type == "cpu"


def test_a_count_of_an_older_version_is_refused():
    counter = PassCounter({"student": nn.Identity()}, 9)
    state = counter.state()
    with pytest.raises(ZooError, match="made by an older version of Salt Zoo"):
        counter.load({role: {"forward": 1.0} for role in state})


def test_a_pass_within_a_pass_belongs_to_it():
    class Twice(nn.Module):
        def forward(self, x, t, condition, memory=None):
            return x if x.shape[2] == 1 else self(x[:, :, :1], t, condition)

    network = Twice()
    counter = PassCounter({"student": network}, 4)
    network(torch.zeros(2, 1, 4, 1, 1), torch.zeros(2), {})
    assert counter.counts["student"] == {"forward": 2.0, "backward": 0.0}


@pytest.mark.parametrize("backbone", ["wan", "self-forcing"])
def test_each_original_is_loaded_once(train, tmp_path, monkeypatch, backbone):
    """57 GB from disk for each of 14 B, where four networks share two originals."""
    from salt_zoo_digits.size import DigitsSize

    made = []
    transformer = DigitsSize.transformer

    def spy(self, start):
        made.append(start)
        return transformer(self, start)

    monkeypatch.setattr(DigitsSize, "transformer", spy)
    trainer = train(
        tmp_path,
        method={"name": "dmd", "steps": 2, "fake_score": {"updates": 1}},
        backbone={"name": backbone, "size": "digits"},
        training={"updates": 1, "ema": {"decay": 0.9, "start": 0}},
    )
    assert sorted(trainer.networks) == ["fake_score", "student", "student_ema", "teacher"]
    assert made.count("teacher") == 2  # the student's, and that of teacher and fake score
    every = [{id(p) for p in network.parameters()} for network in trainer.networks.values()]
    assert len(set().union(*every)) == sum(map(len, every))  # none shares a weight with another
