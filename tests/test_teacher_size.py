"""A teacher of another size than its student: training, features, plans, resuming, saving."""

from __future__ import annotations

import pytest
import torch

from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.planning.plan import flops_per_update, plan_run
from salt_zoo.training.launch import train
from salt_zoo.training.students import save_student
from tests.test_matrix import ZOO

LAYERS = {"student": 2, "fake_score": 2, "teacher": 6}


@pytest.fixture(scope="module")
def zoo():
    """One whose plans other files make, too."""
    return ZOO


def content(method="dmd", backbone="self-forcing", teacher="test-large", **training):
    objectives = {"cache-alignment": {"start": 0}} if method == "cda" else {}
    return {
        "method": {
            "name": method,
            "learning_rate": 1e-3,
            "fake_score": {"updates": 1, "learning_rate": 1e-3},
            "objectives": {"distribution-matching": {}, **objectives},
            "steps": {4: 1.0},
        },
        "backbone": {"name": backbone, "size": "test-small", "teacher": {"size": teacher}},
        "dataset": "digits",
        "training": {"updates": 2, "batch_size": 1, "trackers": [], **training},
    }


def layers(network):
    return len(network.transformer.blocks)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("backbone", ["wan", "self-forcing"])
def test_roles_have_their_sizes(zoo, tmp_path, backbone):
    trainer = train(resolve(content(backbone=backbone), zoo, "test"), tmp_path, zoo, "cpu")
    networks = trainer.networks
    assert {role: layers(networks[role]) for role in LAYERS} == LAYERS
    own = trainer.backbone
    assert torch.equal(weights(networks["teacher"]), weights(own.network("teacher")))
    assert layers(own.network("teacher")) == 6 and layers(own.network("student")) == 2
    # what follows the student's distribution is bidirectional, and starts from weights of its size
    assert own.blocks(networks["fake_score"]).frames is None
    start = zoo.sizes.create("test-small", zoo.sizes.configure("test-small", {}, "t"), zoo)
    first = weights(start.transformer("teacher"))
    changed = (weights(networks["fake_score"]) - first).abs()
    assert 0 < changed.max() < 0.01  # two updates of 1e-3 each


def test_the_teachers_own_depth_is_looked_at(zoo, tmp_path, monkeypatch):
    """Half of the teacher's 6 blocks, not of the student's 2."""
    ran = []
    from salt_zoo_wan.transformer.network import WanNetwork

    features = WanNetwork.features

    def spy(self, *given):
        hooks = [
            block.register_forward_pre_hook(lambda module, inputs, index=index: ran.append(index))
            for index, block in enumerate(self.transformer.blocks)
        ]
        try:
            return features(self, *given)
        finally:
            for hook in hooks:
                hook.remove()

    monkeypatch.setattr(WanNetwork, "features", spy)
    train(resolve(content("cda", updates=4), zoo, "test"), tmp_path, zoo, "cpu")
    assert set(ran) == {0, 1, 2, 3}


def test_plans_are_by_role(zoo, tmp_path):
    run = resolve(content(), zoo, "test")
    plan = plan_run(run, zoo, "cpu")
    trainer = train(run, tmp_path, zoo, "cpu")
    for role in LAYERS:
        held = weights(trainer.networks[role]).numel()
        assert plan.parameters[role] == held
        assert plan.memory[f"weights {role}"] == pytest.approx(4 * held / 2**30)
    assert plan.parameters["teacher"] > 3 * plan.parameters["student"]
    cost = trainer.cost()["flops"]
    assert 2 * flops_per_update(run, zoo) == pytest.approx(cost, rel=0.02)
    same = resolve(
        {**content(), "backbone": {"name": "self-forcing", "size": "test-small"}}, zoo, "t"
    )
    assert flops_per_update(same, zoo) < 0.7 * flops_per_update(run, zoo)
    # gradients and states are those of trained networks, which have the student's size
    assert plan.memory["gradients"] == plan.memory["weights fake_score"]


def test_resuming_changes_nothing(zoo, tmp_path):
    whole = train(resolve(content(), zoo, "test"), tmp_path / "whole", zoo, "cpu")
    stopped = resolve(content(checkpoint_every=1), zoo, "test")

    def stop(step, updates, logs):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, tmp_path / "parts", zoo, "cpu", stop)
    again = train(stopped, tmp_path / "parts", zoo, "cpu")
    for role in LAYERS:
        assert torch.equal(weights(whole.networks[role]), weights(again.networks[role])), role
    assert again.cost()["passes"] == whole.cost()["passes"]


def test_a_student_is_saved_in_its_size(zoo, tmp_path):
    run = resolve(content(), zoo, "test")
    trainer = train(run, tmp_path / "run", zoo, "cpu")
    folder = save_student(trainer, run, tmp_path / "student")
    loaded = trainer.backbone.load(folder)
    assert layers(loaded) == 2
    assert torch.equal(weights(loaded), weights(trainer.networks.eval_network))


def test_a_teacher_of_the_same_size_is_as_none(zoo, tmp_path):
    named = train(resolve(content(teacher="test-small"), zoo, "test"), tmp_path / "a", zoo, "cpu")
    plain = content()
    del plain["backbone"]["teacher"]
    without = train(resolve(plain, zoo, "test"), tmp_path / "b", zoo, "cpu")
    for role in LAYERS:
        assert torch.equal(weights(named.networks[role]), weights(without.networks[role])), role


def test_the_teacher_is_in_the_fingerprint(zoo):
    """A backbone that has this teacher alone shares its reference rows; one with another, none."""
    run = resolve(content(), zoo, "test")
    found = zoo.backbones.create("self-forcing", run.backbone, zoo).fingerprint()

    def alone(size):
        config = zoo.backbones.configure("wan", {"size": size}, "test")
        return zoo.backbones.create("wan", config, zoo).fingerprint()

    assert alone("test-large").items() <= found.items()
    assert not alone("test-small").items() <= found.items()
    assert found["student/changes"] == alone("test-small")["changes"]


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("test-longer", "are [1, 12, 16, 16], those of the student's size 'test-small' [1, 9, 16,"),
        ("test-reader", "choose sizes with one text encoder"),
        ("test-larg", "did you mean 'test-large'"),
    ],
)
def test_teachers_that_do_not_fit(zoo, teacher, said, tmp_path):
    with pytest.raises(ZooError) as caught:
        train(resolve(content(teacher=teacher), zoo, "test"), tmp_path, zoo, "cpu")
    text = str(caught.value)
    assert said in text and "\n" not in text


def test_a_small_student_of_the_published_teacher(zoo):
    """1.3 B, with a fake score of 1.3 B, and a teacher of 14 B whose codecs are the student's."""
    from salt_zoo.core.methods.roles import source

    part = {"size": "wan2.1-t2v-1.3b", "teacher": {"size": "wan2.1-t2v-14b"}}
    config = zoo.backbones.configure("self-forcing", part, "test")
    backbone = zoo.backbones.create("self-forcing", config, zoo)
    sizes = [source(backbone, start).size.name for start in ("teacher", "score", "student")]
    assert sizes == ["wan2.1-t2v-14b", "wan2.1-t2v-1.3b", "wan2.1-t2v-1.3b"]
    assert backbone.fingerprint()["transformer"].startswith("Wan-AI/Wan2.1-T2V-14B")
    fetched = {item["source"]: item["parts"] for item in backbone.downloads()}
    if large := fetched.get("Wan-AI/Wan2.1-T2V-14B-Diffusers"):
        assert large == ["transformer"]
