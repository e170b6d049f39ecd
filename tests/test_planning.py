"""Plans, against what really runs: counted passes, allocated bytes, closed-form sizes."""

import pytest
import torch

from salt_zoo.config.execution import ExecutionConfig
from salt_zoo.config.run import resolve
from salt_zoo.config.training import OptimizerConfig, TrainingConfig
from salt_zoo.core.base.errors import ZooError
from salt_zoo.costs.passes import Held, count_forward_passes
from salt_zoo.planning.dry_runs import dry_run
from salt_zoo.planning.plan import GIB, flops_per_update, make_plan, plan_run
from salt_zoo.training.launch import train
from tests.test_matrix import ZOO

#: Updates of plans: memory depends on none, and few are counted quickly.
FEW = 4


@pytest.fixture
def small():
    """The zoo of the sizes of tests, whose plans other files make, too."""
    return ZOO


def backbone_of(zoo, size="test-small"):
    config = zoo.backbones.configure("wan", {"size": size}, "test")
    return zoo.backbones.create("wan", config, zoo)


def method_of(zoo, name, **options):
    return zoo.methods.create(name, zoo.methods.configure(name, options, "test"), zoo)


def run_of(zoo, method, **training):
    content = {
        "method": method,
        "backbone": {"name": "wan", "size": "test-small"},
        "dataset": "digits",
        "training": {"updates": 3, "batch_size": 2, "trackers": [], **training},
    }
    return resolve(content, zoo, "test")


#: Of several rows; all methods are in tests/test_budget.py.
METHODS = [
    {"name": "consistency"},
    {"name": "dmd", "steps": 2, "fake_score": {"updates": 2}},
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["name"])
def test_planned_passes_are_the_ones_that_run(small, tmp_path, method):
    run = run_of(small, method)
    trainer = train(run, tmp_path, small, device="cpu")
    counted = trainer.cost()["passes"]
    planned = plan_run(run, small, device="cpu").passes
    for role, count in planned.items():
        for kind, value in count.items():
            assert 3 * value == pytest.approx(counted[role][kind]), (role, kind)


def test_consistency_by_hand(small):
    found = count_forward_passes(method_of(small, "consistency"), backbone_of(small), updates=5)
    counts = found.counts
    assert counts["student"] == {"forward": 1, "backward": 1}
    assert counts["target"] == {"forward": 1, "backward": 0}
    assert counts["teacher"] == {"forward": 2, "backward": 0}  # guided
    # one recorded pass is held when the turn goes backward
    assert found.held == {Held((("student", 1, 1.0),), 0.0)}


def causal(zoo):
    content = {"size": "test-small", "block_frames": 3, "memory": "full"}
    config = zoo.backbones.configure("self-forcing", content, "test")
    return zoo.backbones.create("self-forcing", config, zoo)


def test_a_memory_is_counted_while_somebody_holds_it(small):
    """Of DMD: beside one block's graph, and gone before the fake score's whole video is there."""
    held = count_forward_passes(method_of(small, "dmd"), causal(small), updates=3).held

    def beside(role: str) -> set[float]:
        return {
            moment.memories for moment in held if role in {name for name, *_ in moment.recorded}
        }

    assert beside("fake_score") == {0} and beside("student") == {1}
    plan = make_plan(
        causal(small),
        method_of(small, "dmd"),
        TrainingConfig(updates=FEW, batch_size=2),
        device="cpu",
    )
    assert 0 < plan.memory["KV memory"] < plan.memory["activations"] / 2
    assert plan.apart == pytest.approx(plan.memory["KV memory"])  # a third of a video is less
    assert plan.peak == pytest.approx(sum(plan.memory.values()) - plan.apart)
    forced = method_of(small, "teacher-forcing", past="cached")
    plan = make_plan(causal(small), forced, TrainingConfig(updates=FEW, batch_size=2), device="cpu")
    assert plan.memory["KV memory"] and plan.apart == 0  # block by block, beside its memory


def test_costs_of_arms_in_relation(small):
    cost = {
        name: flops_per_update(run_of(small, m, updates=40), small)
        for name, m in {
            "dmd-8": {"name": "dmd", "steps": 8},
            "dmd-4": {"name": "dmd", "steps": 4},
            "sc-dmd": {"name": "sc-dmd"},
            "consistency": {"name": "consistency"},
        }.items()
    }
    assert (
        cost["consistency"] < cost["dmd-4"] < cost["dmd-8"] < cost["sc-dmd"] < 1.1 * cost["dmd-8"]
    )
    twice = flops_per_update(run_of(small, {"name": "consistency"}, batch_size=4), small)
    assert twice == 2 * cost["consistency"]


def test_the_full_size(zoo):
    """Weights, gradients and states by hand; activations in the range that any 1.3 B must have."""
    backbone = backbone_of(zoo, "wan2.1-t2v-1.3b")
    execution = ExecutionConfig(micro_batch=1, gradient_checkpointing=True)
    method, config = method_of(zoo, "sc-dmd"), TrainingConfig(updates=FEW, batch_size=64)
    plan = make_plan(backbone, method, config, execution)
    assert backbone.device == "cpu"
    one = 4 * 1_418_996_800 / GIB
    assert plan.parameters == dict.fromkeys(("student", "teacher", "fake_score"), 1_418_996_800)
    assert plan.micro_batch == 1
    for role in ("student", "fake_score", "student_ema"):
        assert plan.memory[f"weights {role}"] == pytest.approx(one)
    # frozen, so most of it is held in bfloat16
    assert one / 2 < plan.memory["weights teacher"] < 0.52 * one
    assert plan.memory["gradients"] == pytest.approx(one)
    # two trained networks, without a first moment at beta1 = 0
    assert plan.memory["optimizer states"] == pytest.approx(2 * one)
    # 32,760 tokens of width 1,536: a block's input is 0.1 GiB in bfloat16
    inputs = 30 * 32_760 * 1536 * 2 / GIB
    execution = execution.model_copy(update={"gradient_checkpointing": False})
    plain = make_plan(backbone, method, config, execution)
    assert inputs < plan.memory["activations"] < 6 * inputs
    assert 10 * plan.memory["activations"] < plain.memory["activations"]
    parts = [gib for part, gib in plan.memory.items() if not part.startswith("codec")]
    assert plan.peak == pytest.approx(sum(parts))
    # attention is counted: 4 N^2 d a block, and 2 FLOPs a parameter and token
    tokens, width = 32_760, 1536
    forward = 2 * 1.35e9 * tokens + 30 * 4 * tokens**2 * width
    passes = plan.passes["student"]["forward"] + plan.passes["teacher"]["forward"]
    passes += plan.passes["fake_score"]["forward"]
    backward = plan.passes["student"]["backward"] + plan.passes["fake_score"]["backward"]
    assert plan.flops == pytest.approx(forward * (passes + 3 * backward), rel=0.1)
    assert [d["bytes"] for d in plan.downloads] in ([], [pytest.approx(28.9e9, rel=0.01)])


def test_precision_checkpointing_and_batch(small):
    backbone, method = backbone_of(small), method_of(small, "consistency")

    def activations(device="cuda", precision="auto", **options):
        config = TrainingConfig(updates=FEW, batch_size=64, precision=precision)
        plan = make_plan(backbone, method, config, ExecutionConfig(**options), device=device)
        return plan.memory["activations"]

    assert activations(device="cpu") > activations()
    assert activations(precision="fp32") == activations(device="cpu")
    assert activations(gradient_checkpointing=True) < activations()
    assert activations(micro_batch=16) < activations()


def test_planned_activations_are_what_autograd_keeps(small):
    """Without a backward pass: what a real forward pass saves is within the planned peak."""
    backbone = backbone_of(small)
    plan = make_plan(
        backbone, method_of(small, "dmd"), TrainingConfig(updates=FEW, batch_size=8), device="cpu"
    )
    network = backbone.network("random").requires_grad_(True)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x, t = torch.randn(8, *backbone.latent_shape), torch.full((8,), 0.5)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = network(x, t, backbone.encode_prompts([""] * 8))
    assert out.shape == x.shape
    saved = sum(kept.values()) / GIB
    assert saved < plan.memory["activations"] < 2 * saved


def test_states_follow_the_optimizer(small):
    method = method_of(small, "consistency")

    def states(**options):
        config = TrainingConfig(updates=FEW, optimizers={"student": OptimizerConfig(**options)})
        return make_plan(backbone_of(small), method, config).memory["optimizer states"]

    weights = make_plan(backbone_of(small), method, TrainingConfig(updates=FEW)).memory[
        "weights student"
    ]
    assert states() == pytest.approx(weights)
    assert states(betas=(0.9, 0.999)) == pytest.approx(2 * weights)
    assert states(name="muon") == pytest.approx(weights)
    assert weights < states(name="muon", betas=(0.9, 0.999)) < 1.5 * weights


def test_a_batch_that_cannot_be_split(small):
    with pytest.raises(ZooError, match="cannot be split over 3 processes; write"):
        make_plan(
            backbone_of(small),
            method_of(small, "dmd"),
            TrainingConfig(updates=FEW, batch_size=64),
            processes=3,
        )


def test_a_backbone_that_needs_data(small, monkeypatch):
    backbone = backbone_of(small)
    monkeypatch.setattr(
        backbone.size, "encode_prompts", lambda *a: {"text": torch.empty(1, device="meta").item()}
    )
    with pytest.raises(ZooError, match="meta device") as error:
        make_plan(backbone, method_of(small, "dmd"), TrainingConfig(updates=FEW))
    assert "\n" not in str(error.value)
    assert backbone.device == "cpu"


def test_learning_rates_share_a_dry_run(small):
    """Of which a study may try hundreds; what changes the passes has one of its own."""

    def dry(**options):
        content = {
            "name": "dmd",
            "learning_rate": 1e-4,
            "steps": 4,
            "fake_score": {"learning_rate": 1e-4, "updates": 2},
        }
        return dry_run(run_of(small, {**content, **options}), small)

    one = dry()
    assert dry(learning_rate=3e-5, fake_score={"learning_rate": 1e-5, "updates": 2}) is one
    assert dry(steps=2) is not one and dry(fake_score={"updates": 1}) is not one
