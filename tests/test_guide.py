"""The examples of plugins/README.md run, one by one and by the tests that the page itself has."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from salt_zoo.config.field_types import types_of_run
from salt_zoo.config.overrides import apply_overrides
from salt_zoo.config.run import resolve
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.plugin.manager import Zoo, load_zoo
from salt_zoo.plugin.registration.registry import merge
from salt_zoo.training.launch import train
from tests.conftest import PROMPT

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "plugins" / "README.md"
BLOCK = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```\n", flags=re.DOTALL)
EXAMPLES: dict[str, str] = dict(BLOCK.findall(GUIDE.read_text(encoding="utf-8")))
#: Examples that are a plugin by themselves, by the registry that each adds a part to.
PLUGINS = {
    "guidance_distillation.py": ("methods", "guidance-distillation"),
    "progressive_distillation.py": ("methods", "progressive-distillation"),
    "smoothness.py": ("objectives", "smoothness"),
    "gan_head.py": ("objectives", "gan-head"),
    "strided.py": ("memories", "strided"),
    "contrast.py": ("metrics", "contrast"),
    "clips.py": ("datasets", "clips"),
    "tiny_conv.py": ("backbones", "tiny-conv"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of the guide, and clips for its dataset."""
    root = tmp_path_factory.mktemp("guide")
    for name, text in EXAMPLES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "clips").mkdir()
    table = {}
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (1, 8, 16, 16), dtype=np.uint8)
        np.save(root / "clips" / f"{i:02}.npy", pixels)
        table[f"{i:02}.npy"] = f"clip {i % 2}"
    (root / "clips" / "clips.json").write_text(json.dumps(table))
    return root


@pytest.fixture(scope="module")
def pages_zoo(folder: Path) -> Zoo:
    """The installed plugins, those of the guide, and small sizes."""
    zoo = load_zoo([*(str(folder / name) for name in PLUGINS), "tests.sizes.plugin"])
    assert not zoo.broken
    return zoo


@pytest.fixture
def run(pages_zoo: Zoo, tmp_path: Path) -> Callable[..., tuple[Any, dict[str, float]]]:
    """Trains a few updates; returns the trainer and the last logs."""

    def start(
        content: dict[str, Any], name: str = "run", updates: int = 1
    ) -> tuple[Any, dict[str, float]]:
        training = {"updates": updates, "batch_size": 2, "trackers": []}
        content = merge(content, {"training": training})
        logs: list[dict[str, float]] = []
        trainer = train(
            resolve(content, pages_zoo, "test"), tmp_path / name, pages_zoo, "cpu",
            lambda step, updates, found: logs.append(dict(found)),
        )  # fmt: skip
        return trainer, logs[-1]

    return start


def on_digits(backbone: str, method: dict[str, Any], **options: Any) -> dict[str, Any]:
    part = {"name": backbone, "size": "test-small", **options}
    return {"method": method, "backbone": part, "dataset": "digits"}


def test_every_file_of_the_guide_is_known():
    others = {
        "run.yaml",
        "student.yaml",
        "test_plugins.py",
        "pyproject.toml",
        "salt_zoo_contrast/plugin.py",
    }
    assert EXAMPLES.keys() == PLUGINS.keys() | others


@pytest.mark.parametrize("name", PLUGINS)
def test_an_example_loads_alone(name, folder):
    zoo = load_zoo([str(folder / name)])
    assert zoo.broken == []
    assert zoo.notices == []
    registry, part = PLUGINS[name]
    assert part in getattr(zoo, registry)


def test_the_examples_are_clean(folder):
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", str(folder)]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("backbone", ["wan", "self-forcing"])
def test_the_method_trains(backbone, run):
    trainer, logs = run(on_digits(backbone, {"name": "guidance-distillation"}))
    assert logs["student/loss"] > 0
    counts = trainer.counter.counts
    frames = pytest.approx(2)  # videos: the student has each frame once, the teacher twice
    assert counts["student"]["backward"] == frames
    assert counts["teacher"]["backward"] == 0


@pytest.mark.parametrize("backbone", ["wan", "self-forcing"])
def test_the_phases_halve_the_steps(backbone, run):
    """The first teacher is guided (twice the passes), the second is the student of the first."""
    method = {"name": "progressive-distillation", "updates": 1, "steps": [2, 1]}
    trainer, logs = run(on_digits(backbone, method), updates=2)
    assert logs["student/loss"] > 0
    assert [trainer.method.update_order(index) for index in range(3)] == [
        ["student"], ["teacher", "student"], ["student"],
    ]  # fmt: skip
    forward = trainer.counter.counts["teacher"]["forward"]
    assert forward == pytest.approx(2 * 2 * 2 + 2 * 2 + extra(trainer, [2, 1]))
    student, teacher = (trainer.networks[role].state_dict() for role in ("student", "teacher"))
    assert any(not torch.equal(value, student[name]) for name, value in teacher.items())


def extra(trainer: Any, guided: list[int]) -> float:
    """Videos that a teacher has committed to its memory, all blocks but the last of each."""
    frames = trainer.backbone.latent_shape[1]
    blocks = trainer.backbone.blocks().split(frames)
    return sum(2 * factor * (frames - (blocks[-1].stop - blocks[-1].start)) / frames
               for factor in guided)  # fmt: skip


def test_the_run_of_the_guide_resolves(pages_zoo):
    content = yaml.safe_load(EXAMPLES["run.yaml"])
    assert resolve(content, pages_zoo, "run.yaml").config.training.updates == 200
    page = GUIDE.read_text(encoding="utf-8")
    lines = re.findall(r"^salt-zoo train run\.yaml .*$", page, flags=re.MULTILINE)
    assert len(lines) >= 5
    for line in lines:  # each replaces a part of it
        words = shlex.split(line)
        changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        changed = apply_overrides(yaml.safe_load(EXAMPLES["run.yaml"]), changes,
                                  types_of_run(pages_zoo))  # fmt: skip
        resolve(changed, pages_zoo, line)


def test_the_objective_is_a_term_of_dmd(run):
    terms = {"distribution-matching": {}, "smoothness": {"weight": 0.5}}
    method = {"name": "dmd", "fake_score": {"updates": 1}, "objectives": terms}
    _, logs = run(on_digits("self-forcing", method))
    matching, smooth = logs["student/distribution_matching"], logs["student/smoothness"]
    assert smooth > 0
    assert logs["student/loss"] == pytest.approx(matching + 0.5 * smooth, rel=1e-5)


def test_the_memory_keeps_what_it_says(pages_zoo):
    """Frames in the place of keys: what every block sees of a video of 24 frames in blocks of 3."""
    from salt_zoo_self_forcing.cache import CacheShape, KVCache

    options = pages_zoo.memories.configure("strided", {}, "test")
    policy = pages_zoo.memories.create("strided", options, pages_zoo)
    cache = KVCache(policy, CacheShape(1, 1, 1, 1, 1, torch.float32, "cpu"), 24)
    assert cache.limit is None
    for first in range(0, 24, 3):
        own = list(range(first, first + 3))
        placed = policy.place(cache, 3)
        assert placed.positions == own
        for slot, frame in zip(placed.slots, own, strict=True):
            cache.keys[0][0, slot] = frame
        seen = cache.keys[0][0, : placed.used].flatten().int().tolist()
        gone = [frame for frame in range(max(0, first - 3)) if frame % 2 == 0]
        latest = list(range(max(0, first - 3), first + 3))
        assert sorted(seen) == gone[-4:] + latest
        cache.commit(3)


def test_the_memory_generates_and_trains(pages_zoo, run):
    from salt_zoo.rollout.generate import SamplingConfig, generate

    content = on_digits(
        "self-forcing", {"name": "diffusion-forcing"}, memory={"name": "strided", "frames": 3}
    )
    trainer, logs = run(content)
    assert logs["student/loss"] > 0
    rng = KeyedRNG(0, ("test",), range(1))
    network, backbone = trainer.networks["student"], trainer.backbone
    videos = [
        generate(network, backbone, [PROMPT], rng, SamplingConfig(steps=1), frames=frames)
        for frames in (9, 18)
    ]
    assert videos[1].shape == (1, 1, 18, 16, 16)
    assert torch.equal(videos[1][:, :, :9], videos[0])


def test_the_metric_measures(pages_zoo):
    from salt_zoo.evaluation.videos import Videos, measure
    from salt_zoo.plugin.isolation.checked_metric import make_metric

    pixels = torch.zeros(3, 1, 4, 2, 2)
    pixels[1, :, :, 0] = 1
    pixels[2, :, 0] = 1
    videos = Videos(pixels, [PROMPT] * 3, KeyedRNG(0, rows=range(3)), None)  # type: ignore[arg-type]
    for first, wanted in ((0, [0, 0.5, 0.75**0.5 / 2]), (1, [0, 0.5, 0])):
        options = pages_zoo.metrics.configure("contrast", {"first": first}, "test")
        metric = make_metric("contrast", options, pages_zoo)
        rows = measure({"contrast": metric}, videos)["contrast"]
        assert rows.tolist() == pytest.approx(wanted, abs=1e-6)
        assert metric.reduce(rows) == pytest.approx(sum(wanted) / 3, abs=1e-6)


def test_the_dataset_samples(pages_zoo, folder):
    options = pages_zoo.datasets.configure("clips", {"folder": folder / "clips"}, "test")
    data = pages_zoo.datasets.create("clips", options, pages_zoo)
    assert {name: len(clips) for name, clips in data.splits.items()} == {
        "train": 16, "validation": 2, "test": 2,
    }  # fmt: skip
    assert sorted(data.prompts("train")) == ["clip 0", "clip 1"]
    rng = KeyedRNG(0, ("test",), range(4))
    sample = data.sample(rng, "train", True)
    assert sample.video.shape == (4, 1, 8, 16, 16)
    assert 0 <= sample.video.min() < sample.video.max() <= 1
    assert data.sample(rng, "train", False).video is None
    real = data.real(["clip 0"] * 4, rng, "train", 5)
    assert torch.equal(data.real(["clip 0"] * 4, rng, "train")[:, :, :5], real)
    assert len(data.fingerprint()) == 20


@pytest.mark.parametrize("backbone", ["wan", "self-forcing"])
def test_the_discriminator_is_trained_with_the_fake_score(backbone, run):
    terms = {"distribution-matching": {}, "gan-head": {"weight": 0.5}}
    method = {"name": "dmd", "fake_score": {"updates": 2}, "objectives": terms}
    trainer, logs = run(on_digits(backbone, method))
    matching, gan = logs["student/distribution_matching"], logs["student/gan_head"]
    assert gan > 0
    assert logs["student/loss"] == pytest.approx(matching + 0.5 * gan, rel=1e-5)
    assert logs["fake_score/gan_head"] > 0 and logs["head/gradient_norm"] > 0
    # two fake-score updates on 2 real and 2 fake videos each, and the student's update
    assert trainer.counter.counts["head"] == {"forward": 10.0, "backward": 10.0}


GUIDE_TESTS = re.findall(r"^def (test_\w+)", EXAMPLES["test_plugins.py"], flags=re.MULTILINE)


@pytest.mark.parametrize("name", GUIDE_TESTS)
def test_the_tests_of_the_guide_pass(name, folder, monkeypatch):
    """On one block in place of four."""
    monkeypatch.chdir(folder)
    text = EXAMPLES["test_plugins.py"].replace('"size": "digits"', '"size": "test-tiny"')
    text = text.replace("load_zoo([", 'load_zoo(["tests.sizes.plugin", ')
    namespace: dict[str, Any] = {}
    exec(compile(text, "test_plugins.py", "exec"), namespace)
    namespace[name]()


def test_the_backbone_is_pretrained_and_distilled(folder, run, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(folder)
    plugins = ("-p", "tiny_conv.py", "-p", "clips.py", "--device", "cpu")
    small = ("--set", "run.training.updates=2", "--set", "run.training.batch_size=2")
    done = cli(
        "pretrain", "teacher", *plugins, *small, "--set", "backbone=tiny-conv",
        "--set", "dataset={name: clips, folder: clips}", "--out", tmp_path / "made",
    )  # fmt: skip
    saved = tmp_path / "made" / "teacher"
    assert done.code == 0, done.err
    assert done.out.strip() == str(saved)
    student = yaml.safe_load(EXAMPLES["student.yaml"])
    student["backbone"]["weights"] = str(saved)
    student["method"]["fake_score"] = {"updates": 1}
    distilled, logs = run(student, "student")
    assert logs["student/loss"] > 0
    teacher = distilled.networks["teacher"]
    assert all(
        torch.equal(value, teacher.state_dict()[name])
        for name, value in distilled.backbone.load(saved).state_dict().items()
    )
    x = KeyedRNG(0, rows=range(2)).randn(distilled.backbone.latent_shape, "x")
    prompts = distilled.backbone.encode_prompts(["a prompt", ""])
    v = teacher(x, torch.tensor([0.3, 0.7]), prompts)
    assert v.shape == x.shape
    times = torch.tensor([[0.3], [0.7]]).expand(2, x.shape[2])
    assert torch.allclose(teacher(x, times, prompts), v, atol=1e-6)
    done = cli(
        "sample", "a ball rolls left", "-p", "tiny_conv.py", "--checkpoint", saved,
        "--nfe", 1, "--device", "cpu", "--out", tmp_path / "ball.gif",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert (tmp_path / "ball.gif").is_file()


def test_the_package_registers_by_strings(folder, tmp_path, monkeypatch):
    package = tmp_path / "salt_zoo_contrast"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text(EXAMPLES["salt_zoo_contrast/plugin.py"])
    (package / "contrast.py").write_text(EXAMPLES["contrast.py"].split("@hookimpl")[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    project = tomllib.loads(EXAMPLES["pyproject.toml"])["project"]
    (module,) = project["entry-points"]["salt_zoo"].values()
    zoo = load_zoo([module])
    assert zoo.broken == []
    assert "salt_zoo_contrast.contrast" not in sys.modules
    assert zoo.metrics["contrast"].load().__module__ == "salt_zoo_contrast.contrast"
    for name in ("", ".plugin", ".contrast"):
        monkeypatch.delitem(sys.modules, f"salt_zoo_contrast{name}")
