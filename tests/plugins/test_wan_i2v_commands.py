"""Commands and plans of Wan 2.1 image-to-video, with a tiny Wan of its structure."""

from __future__ import annotations

import pytest
import yaml

from salt_zoo.config.run import resolve
from salt_zoo.core.protocols import Sample
from salt_zoo.planning.plan import plan_run
from salt_zoo.plugin.manager import load_zoo
from tests.plugins.test_wan_published_sizes import tiny_wan as text_wan  # noqa: F401
from tests.plugins.tiny_i2v import SHAPE, SIZE, as_pil, make_image, save_pipeline

pytestmark = pytest.mark.usefixtures("one_zoo")

PROMPTS = ["a red fox", "waves"]


@pytest.fixture(scope="module")
def tiny_wan(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("tiny") / "i2v")


def test_sample_and_stream_take_an_image(cli, tiny_wan, tmp_path):
    image, out = tmp_path / "image.png", tmp_path / "out.png"
    as_pil(make_image()).save(image)
    options = [f"--set=backbone.options.{key}={value}" for key, value in SHAPE.items()]
    options += ["--size", SIZE, f"--set=backbone.options.weights={tiny_wan}", "--nfe=1"]
    ended = cli("sample", "a fox", "--backbone=wan", *options, "--out", out, "--image", image)
    assert ended.code == 0 and out.is_file(), ended.err
    first = out.read_bytes()
    as_pil(make_image(1)).resize((96, 64)).save(image)
    cli("sample", "a fox", "--backbone=wan", *options, "--out", out, "--image", image)
    assert out.read_bytes() != first
    causal = ["--backbone=self-forcing", "--frames=9", "--out", out]
    assert cli("stream", "a fox", *options, *causal, "--image", image).code == 0
    for command in (("sample", "--backbone=wan"), ("stream", *causal[:2])):
        ended = cli(*command, "a fox", *options, "--out", out)
        assert ended.code == 2
        assert ended.error.endswith(f"the size '{SIZE}' generates from a first frame; give one "
                                    "with --image FILE")  # fmt: skip
    image.write_text("no image")
    ended = cli("sample", "a fox", "--backbone=wan", *options, "--out", out, "--image", image)
    assert ended.code == 2 and "cannot be read as an image" in ended.error
    ended = cli("sample", "a 7 moving up slowly", "--backbone=wan", "--size=digits", "--out", out,
                "--image", image)  # fmt: skip
    assert ended.code == 2 and "generates from prompts alone" in ended.error


def test_each_row_of_a_table_has_its_image(cli, tiny_wan, tmp_path):
    """As if each were sampled alone with `--image`."""
    options = [f"--set=backbone.options.{key}={value}" for key, value in SHAPE.items()]
    options += ["--size", SIZE, f"--set=backbone.options.weights={tiny_wan}", "--nfe=1",
                "--backbone=wan", "--format=png"]  # fmt: skip
    table, own = tmp_path / "prompts.csv", tmp_path / "images"
    own.mkdir()
    for seed in range(2):
        as_pil(make_image(seed)).save(own / f"{seed}.png")
    table.write_text("prompt,image\na fox,images/0.png\na hare,images/1.png\n")
    ended = cli("sample", "--prompts", table, *options, "--out", tmp_path / "all")
    assert ended.code == 0, ended.err
    made = sorted((tmp_path / "all").iterdir())
    assert [path.name for path in made] == ["00000-a-fox.png", "00001-a-hare.png"]
    for seed, prompt in enumerate(("a fox", "a hare")):
        out = tmp_path / f"{seed}/"
        ended = cli("sample", prompt, *options, "--out", f"{out}/", "--image", own / f"{seed}.png")
        assert ended.code == 0, ended.err
        (alone,) = out.iterdir()
        assert alone.read_bytes() == made[seed].read_bytes()
    assert made[0].read_bytes() != made[1].read_bytes()

    def refused(*more: object) -> str:
        ended = cli("sample", *more, *options, "--out", tmp_path / "none")
        assert ended.code == 2 and not (tmp_path / "none").exists()
        return str(ended.error)

    assert "row 1: has no column 'start'" in refused("--prompts", table, "--image-column=start")
    assert "needs --prompts" in refused("a fox", "--image-column=image")
    image = own / "0.png"
    both = refused("--prompts", table, "--image", image, "--image-column=image")
    assert "cannot be combined with --image" in both
    (tmp_path / "lines.txt").write_text("a fox\n")
    assert "has no column of first frames" in refused("--prompts", tmp_path / "lines.txt")
    (own / "1.png").unlink()
    assert "1.png: there is no such file" in refused("--prompts", table)
    ended = cli("sample", "--prompts", table, "--image-column=image", "--backbone=wan",
                "--size=digits", "--out", tmp_path / "none")  # fmt: skip
    assert ended.code == 2 and "--image-column" in ended.error
    assert "generates from prompts alone" in ended.error


def test_data_without_first_frames(cli, tiny_wan, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"prompt {number}" for number in range(9)))
    run = {
        "method": {"name": "dmd"},
        "backbone": {"name": "wan", "size": SIZE, "options": {**SHAPE, "weights": str(tiny_wan)}},
        "dataset": {"name": "prompts", "file": str(prompts), "held_out": 2},
        "training": {"updates": 1, "batch_size": 1},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    ended = cli("train", tmp_path / "run.yaml", "--out", tmp_path / "run", "--device", "cpu")
    assert ended.code == 2 and not (tmp_path / "run").exists()
    assert "generates from first frames: the dataset 'prepared'" in ended.error


class Noise:
    """A dataset of pixels."""

    def __init__(self, config, zoo):
        pass

    def prompts(self, split):
        return PROMPTS

    def sample(self, rng, split, videos=True):
        video = rng.randn((3, 9, 32, 48), "video").sigmoid() if videos else None
        return Sample([PROMPTS[row % 2] for row in rng.rows], video)

    def real(self, prompts, rng, split, frames=None):
        return self.sample(rng, split).video[:, :, :frames]

    def fingerprint(self):
        return {}


def test_the_plan_counts_the_encoders_that_stay(tiny_wan, run_content, train, tmp_path):
    """Of a run from pixels: VAE and CLIP, as they are in memory after an update. Encoded first
    frames need neither, and measuring quality decodes."""
    zoo = load_zoo()
    zoo.datasets.add("noise", Noise, "for tests")
    part = {"name": "wan", "size": SIZE, "options": {**SHAPE, "weights": str(tiny_wan)}}
    run = {"method": {"name": "dmd", "steps": 1, "fake_score": {"updates": 1}}, "backbone": part,
           "training": {"updates": 1, "checkpoint_every": 1}}  # fmt: skip

    def plan(dataset, **more):
        found = plan_run(resolve(run_content(**run, dataset=dataset, **more), zoo, "test"), zoo)
        stays = {part: gib for part, gib in found.memory.items() if part.startswith("resident ")}
        return found, stays

    pixels, stays = plan("noise")
    trainer = train(tmp_path / "run", zoo, **run, dataset="noise")
    size = trainer.backbone.size
    modules = {"vae": size.video._vae, "image_encoder": size.image.encoder._loaded[1]}
    measured = {
        f"resident {name}": sum(p.numel() * p.element_size() for p in module.parameters()) / 2**30
        for name, module in modules.items()
    }
    assert stays == pytest.approx(measured) and "codec vae" not in pixels.memory
    prepared = {"name": "prepared", "folder": "none"}
    encoded, none = plan(prepared)
    assert not none and encoded.memory["codec vae"] == stays["resident vae"]
    assert pixels.peak - encoded.peak == pytest.approx(sum(measured.values()))
    quality = {"every": 1, "metrics": ["motion-magnitude"], "prompts": 2, "steps": [1]}
    assert plan(prepared, quality=quality)[1] == {"resident vae": stays["resident vae"]}


@pytest.mark.parametrize("method", ["consistency", "dmd"])
def test_the_plan_counts_the_vae_of_pixels(method, text_wan, run_content, train, tmp_path):  # noqa: F811
    """A method that needs data encodes every batch; a data-free one none."""
    zoo = load_zoo()
    zoo.datasets.add("noise", Noise, "for tests")
    options = {**SHAPE, "weights": str(text_wan)}
    part = {"name": "wan", "size": "wan2.1-t2v-1.3b", "options": options}
    training = {"updates": 1, "checkpoint_every": 1}
    run = {"method": method, "backbone": part, "dataset": "noise", "training": training}
    content = run_content(**run)
    content["method"] = {"name": method}
    planned = plan_run(resolve(content, zoo, "test"), zoo)
    trainer = train(tmp_path / "run", zoo, **run)
    loaded = trainer.backbone.size.video._vae is not None
    assert loaded == (method == "consistency") == ("resident vae" in planned.memory)
    content["dataset"] = {"name": "prompts", "latents": str(tmp_path)}  # no pixels
    assert "resident vae" not in plan_run(resolve(content, zoo, "test"), zoo).memory
