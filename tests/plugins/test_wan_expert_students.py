"""A student of two experts, each trained in its phase: its gradients, runs and files."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from salt_zoo.config.run import resolve
from salt_zoo.conformance import check_method
from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.first_frame import of_image
from salt_zoo.core.flow import step_list
from salt_zoo.rollout.generate import SamplingConfig, generate
from salt_zoo.training.launch import train
from salt_zoo_wan.checkpoint.files import find_experts
from salt_zoo_wan.checkpoint.lora_files import LORA_FILES, merge_lora
from tests.one_update import names
from tests.plugins.test_wan_a14b import PROMPTS, SIZES, make_backbone, make_image, save_tiny
from tests.plugins.tiny_i2v import SHAPE
from tests.test_matrix import OPTIONS, ZOO, content

EXPERTS = {"name": "wan", "size": "test-experts"}
#: Of two steps, rollouts of the student's updates end at the first, the second, the first, ...
SEED = 2


@pytest.fixture(scope="module", params=list(SIZES))
def tiny(request, tmp_path_factory):
    return request.param, save_tiny(request.param, tmp_path_factory.mktemp("tiny") / "a14b")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The size from text alone."""
    size = "wan2.2-t2v-a14b"
    return size, save_tiny(size, tmp_path_factory.mktemp("text") / "a14b")


def moved(backbone, start="student"):
    """A network whose experts are not those that it starts from."""
    network = backbone.network(start)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return network.requires_grad_(False)


def gradients(network, x, t, condition, rows):
    """By weight, of the rows' part of one pass."""
    network.requires_grad_(True).zero_grad()
    network(x, t, condition)[rows].square().sum().backward()
    return {name: weight.grad for name, weight in network.named_parameters()}


def test_each_expert_has_the_gradient_of_its_rows(zoo, text):
    """Of one that has no row it is None, and the pass of rows on one side is that expert's."""
    backbone = make_backbone(zoo, *text)
    both = backbone.network("student")
    x = KeyedRNG(3, rows=range(4)).randn(backbone.latent_shape, "x")
    condition = backbone.encode_prompts(PROMPTS * 2)
    mixed = gradients(both, x, torch.tensor([0.2, 0.95, 0.875, 0.5]), condition, slice(None))
    for side, times, rows in (
        ("high", [0.9, 0.95, 0.875, 0.95], [1, 2]),
        ("low", [0.2, 0.8, 0.8, 0.5], [0, 3]),
    ):
        t, one = torch.tensor(times), {"high": both.high, "low": both.low}[side]
        found = gradients(both, x, t, condition, rows)
        alone = gradients(one, x, t, condition, rows)
        for name, gradient in found.items():
            if not name.startswith(side):
                assert gradient is None
                continue
            bare = name.removeprefix(f"{side}.")
            assert torch.equal(gradient, alone[bare])
            assert (mixed[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-5, name


# what a method makes of its passes is nothing to the experts: one with rollouts, and two with none,
# one of which has times of a grid
@pytest.mark.parametrize("method", ["consistency", "ode-regression", "sc-dmd"])
def test_a_method_trains_both(method):
    """Bitwise when resumed, and as planned."""
    named = {"name": method, "learning_rate": 1e-3, **OPTIONS.get(method, {})}
    trainer = check_method(named, EXPERTS, "digits", ZOO)
    assert type(trainer.networks["student"]).__name__ == "WanExperts"


@contextmanager
def watched_steps():
    """What each step of an optimizer is given and leaves, by the id of the weight: the weight
    before, its gradient, the weight after."""
    steps = []

    def weights(optimizer):
        return [p for group in optimizer.param_groups for p in group["params"]]

    def before(optimizer, *rest):
        steps.append(
            {
                id(p): [p.detach().clone(), None if p.grad is None else p.grad.clone()]
                for p in weights(optimizer)
            }
        )

    def after(optimizer, *rest):
        for p in weights(optimizer):
            steps[-1][id(p)].append(p.detach().clone())

    handles = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    try:
        yield steps
    finally:
        for handle in handles:
            handle.remove()


OPTIMIZERS = {
    "adamw": {"name": "adamw", "betas": [0.9, 0.99]},
    "memoryless": {"name": "adamw", "betas": [0.0, 0.99]},
    "muon": {"name": "muon"},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_update_on_one_side_moves_one_expert_alone(optimizer, tmp_path):
    """No weight decay and no moment of the other one, nor a part in the norm that is clipped; the
    average goes on to be one over all updates."""
    run = content("dmd", "wan", None)
    run |= {"backbone": EXPERTS, "seed": SEED}
    run["method"] |= {"steps": 2, "timestep_shift": 1.0, "fake_score": {"updates": 1}}
    run["training"] |= {
        "updates": 4, "log_every": 1, "ema": {"decay": 0.5, "start": 0},
        "optimizers": {"student": {**OPTIMIZERS[optimizer], "weight_decay": 0.5}},
    }  # fmt: skip
    with watched_steps() as steps:
        trainer = train(resolve(run, ZOO, "test"), tmp_path, ZOO, "cpu")
    known, together = names(trainer.networks), len(trainer.networks.optimizers["student"])
    of_student = [
        {known[key].removeprefix("student: "): step for key, step in one.items()}
        for one in steps
        if all(known[key].startswith("student: ") for key in one)
    ]
    updates = [
        {name: step for one in of_student[n : n + together] for name, step in one.items()}
        for n in range(0, len(of_student), together)
    ]
    sides = []
    average = {name: step[0].double() for name, step in updates[0].items()}
    for update, logs in zip(updates, trainer.history, strict=True):
        given = {name for name, (_, gradient, _) in update.items() if gradient is not None}
        (side,) = {name.partition(".")[0] for name in given}
        for name, (weight, gradient, after) in update.items():
            assert torch.equal(weight, after) == (gradient is None), name
            average[name] = (average[name] + after.double()) / 2
        norm = torch.stack([update[name][1].norm() for name in given]).norm()
        clipped = min(logs["student/gradient_norm"], trainer.config.clip)
        assert float(norm) == pytest.approx(clipped, rel=1e-5)
        sides.append(side)
    assert sides == ["high", "low", "high", "low"]
    found = trainer.networks["student_ema"].state_dict()
    for name, wanted in average.items():
        torch.testing.assert_close(found[name].double(), wanted, atol=1e-6, rtol=1e-6)


def test_one_step_trains_the_expert_for_high_noise_alone(tmp_path):
    """The other one, its average and its moments are as they were, and in a resumed run, too."""
    run = content("dmd", "wan", None)
    run["backbone"] = EXPERTS
    run["method"] |= {"steps": 1, "fake_score": {"updates": 1}}
    for updates in (1, 2):
        run["training"] |= {"updates": updates, "checkpoint_every": 1}
        trainer = train(resolve(run, ZOO, "test"), tmp_path, ZOO, "cpu")
    first = trainer.backbone.network("student").state_dict()
    for role in ("student", "student_ema"):
        for name, weight in trainer.networks[role].state_dict().items():
            assert torch.equal(weight, first[name]) == name.startswith("low."), (role, name)
    known = names(trainer.networks)
    for optimizer in trainer.networks.optimizers["student"]:
        assert optimizer.state and all("low." not in known[id(w)] for w in optimizer.state)


def test_a_stock_pipeline_runs_the_saved_student(zoo, tiny, tmp_path):
    """4 steps, two of each expert; the folder is read back, as a student and as first weights."""
    import diffusers

    size, folder = tiny
    assert sum(t >= SIZES[size] for t in step_list(4, 5.0)) == 2
    backbone = make_backbone(zoo, size, folder)
    network, image = moved(backbone), make_image() if backbone.image_shape else None
    saved = tmp_path / "student"
    backbone.save(network, saved)
    config = SamplingConfig(steps=4, sampler="ode", guidance_scale=1.0)
    ours = generate(
        network, backbone, PROMPTS[:1], KeyedRNG(3, rows=range(1)), config,
        first_frames=None if image is None else of_image(backbone, image),
    )  # fmt: skip
    kind = diffusers.WanPipeline if image is None else diffusers.WanImageToVideoPipeline
    pipe = kind.from_pretrained(saved)
    assert pipe.config.boundary_ratio == SIZES[size]
    pixels = None if image is None else np.asarray((image * 255).round().byte().permute(1, 2, 0))
    theirs = pipe(
        **({} if pixels is None else {"image": PIL.Image.fromarray(pixels)}),
        prompt=PROMPTS[0], num_inference_steps=4, height=32, width=48, num_frames=9,
        guidance_scale=1.0, output_type="latent",
        latents=KeyedRNG(3, rows=range(1)).randn(backbone.latent_shape, "initial noise"),
    ).frames  # fmt: skip
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)

    weights = network.state_dict()
    read = [backbone.load(saved), make_backbone(zoo, size, saved).network("student")]
    backbone.export(network, tmp_path / "exported", "diffusers")
    read.append(
        make_backbone(zoo, size, tmp_path / "exported", codecs=str(folder)).network("student")
    )
    for found in read:
        assert found.boundary == SIZES[size]
        assert found.state_dict().keys() == weights.keys()
        assert all(torch.equal(value, weights[name]) for name, value in found.state_dict().items())


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    """The folder of a run that has trained both experts as LoRAs whose scale is not 1."""
    from salt_zoo.cli import main

    size, weights = text
    folder = tmp_path_factory.mktemp("trained")
    (folder / "prompts.txt").write_text("\n".join(f"prompt {number}" for number in range(9)))
    lora = {"rank": 4, "alpha": 12}
    run = {
        "seed": SEED,
        "method": {"name": "dmd", "steps": 2, "learning_rate": 1e-2, "fake_score": {"updates": 1}},
        "backbone": {"name": "wan", "size": size, "options": {**SHAPE, "weights": str(weights)}},
        "dataset": {"name": "prompts", "file": str(folder / "prompts.txt"), "held_out": 2},
        "training": {
            "updates": 4, "batch_size": 2, "trackers": [], "ema": None,
            "lora": {"student": lora, "fake_score": lora},
        },
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    assert main(["train", str(folder / "run.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_loras_of_both(zoo, text, trained, cli, tmp_path):
    """Two files, which a stock pipeline reads for its transformers and `export` converts."""
    import diffusers

    backbone, student = make_backbone(zoo, *text), trained / "student"
    merged, base = backbone.load(student), backbone.network("student")
    for name, weight in base.state_dict().items():  # linear layers of the blocks of both
        adapted = "blocks." in name and name.endswith("weight") and weight.ndim == 2
        assert torch.equal(merged.state_dict()[name], weight) != adapted, name
    pipe = diffusers.WanPipeline.from_pretrained(text[1])
    for part, file in LORA_FILES.items():
        second = part == "transformer_2"
        pipe.load_lora_weights(
            str(student), weight_name=file, adapter_name=part, load_into_transformer_2=second
        )
    pipe.fuse_lora(components=list(LORA_FILES))
    for mine, theirs in ((merged.high, pipe.transformer), (merged.low, pipe.transformer_2)):
        fused = {n.replace(".base_layer", ""): w for n, w in theirs.state_dict().items()}
        for name, weight in mine.transformer.state_dict().items():
            torch.testing.assert_close(fused[name], weight, atol=1e-6, rtol=1e-5)
    for side, one in (("high", merged.high), ("low", merged.low)):
        out = tmp_path / f"{side}.safetensors"
        command = ("export", "--checkpoint", trained, "--format", "lora-comfyui", "--out", out)
        assert cli(*command).error.endswith(
            "is a file of one network, and the student has two; write one after the other: --set "
            "backbone.options.expert=high, then low"
        )
        ended = cli(*command, "--set", f"backbone.options.expert={side}")
        assert ended.code == 0, ended.err
        alone = make_backbone(zoo, *text, expert=side).network("student").transformer
        merge_lora(alone.requires_grad_(False), out)
        for name, weight in one.transformer.state_dict().items():
            torch.testing.assert_close(alone.state_dict()[name], weight, atol=1e-6, rtol=1e-5)


def test_the_commands_read_a_student_of_two(zoo, text, trained, cli, tmp_path):
    """`sample`, and `export` of the whole and of each; a folder without a record is recognised."""
    sample = ("sample", "waves", "--nfe", 2, "--device", "cpu", "--out")
    ended = cli(*sample, tmp_path / "own.gif", "--checkpoint", trained)
    assert ended.code == 0, ended.err
    out = tmp_path / "diffusers"
    ended = cli("export", "--checkpoint", trained, "--format", "diffusers", "--out", out)
    assert ended.code == 0, ended.err
    assert find_experts(out) == {part: out / part for part in LORA_FILES}
    wanted = make_backbone(zoo, *text).load(trained / "student")
    for side, one in (("high", wanted.high), ("low", wanted.low)):
        path = tmp_path / f"{side}.safetensors"
        command = ("export", "--checkpoint", trained, "--format", "wan", "--out", path)
        assert cli(*command).code == 2 and not path.exists()
        assert cli(*command, "--set", f"backbone.options.expert={side}").code == 0
        network = make_backbone(zoo, *text, expert=side).load(path)
        for name, weight in network.state_dict().items():
            assert torch.equal(weight, one.state_dict()[name]), name
    error = cli(*sample, tmp_path / "one.gif", "--checkpoint", tmp_path / "high.safetensors",
                "--backbone", "wan", "--size", text[0],
                "--set", f"backbone.options.weights={text[1]}").error  # fmt: skip
    assert "holds one network, and 'wan2.2-t2v-a14b' has two" in error
    error = cli("sample", "waves", "--out", tmp_path / "x.gif", "--checkpoint", out,
                "--backbone", "self-forcing").error  # fmt: skip
    assert "two networks, and an autoregressive student is one" in error


def test_an_autoregressive_student_is_one(zoo, text):
    size, folder = text
    with pytest.raises(ZooError, match=r"whose keys and values its memory keeps; set backbone\."):
        make_backbone(zoo, size, folder, "self-forcing")
    for side in ("high", "low"):  # one of them starts from its part of a folder of both
        beside = {"initial": str(folder)}
        made = make_backbone(zoo, size, folder, "self-forcing", beside, expert=side)
        wanted = make_backbone(zoo, size, folder, expert=side).network("teacher").state_dict()
        for name, value in made.network("student").state_dict().items():
            assert torch.equal(value, wanted[name])
        assert "initial/diffusion_pytorch_model.safetensors" in made.fingerprint()
