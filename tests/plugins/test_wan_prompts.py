"""The dataset `prompts`: splits, draws, latents, and what is wrong with files."""

import pytest
import safetensors.torch
import torch

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo_wan.encoders.prompts import latents_name, read_prompts


@pytest.fixture
def make(zoo):
    def make(**options):
        config = zoo.datasets.configure("prompts", options, "test")
        return zoo.datasets.create("prompts", config, zoo)

    return make


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(
        "\n".join(["a cat", "", "  a dog ", "a cat", "ein Vögelchen", "waves"]), "utf-8"
    )
    return path


def test_the_bundled_prompts(make):
    data = make()
    splits = {split: data.prompts(split) for split in ("train", "validation", "test")}
    assert [len(v) for v in splits.values()] == [32, 16, 16]
    together = [prompt for prompts in splits.values() for prompt in prompts]
    assert sorted(together) == sorted(read_prompts(None)) and len(set(together)) == 64


def test_a_text_file(make, text_file):
    data = make(file=str(text_file), held_out=1)
    assert read_prompts(text_file) == ["a cat", "a dog", "ein Vögelchen", "waves"]
    assert len(data.prompts("train")) == 2


def test_splits_do_not_depend_on_the_order_of_lines(make, text_file):
    before = make(file=str(text_file), held_out=1)
    text_file.write_text("\n".join(reversed(text_file.read_text("utf-8").splitlines())), "utf-8")
    after = make(file=str(text_file), held_out=1)
    assert before.prompts("test") == after.prompts("test")
    assert before.fingerprint() == after.fingerprint()


def test_rows_are_drawn_one_by_one(make):
    data = make()
    whole = data.sample(KeyedRNG(1, rows=range(6)), "train", videos=False)
    part = data.sample(KeyedRNG(1, rows=range(3, 6)), "train", videos=False)
    assert whole.prompts[3:] == part.prompts
    assert whole.video is None
    assert set(whole.prompts) <= set(data.prompts("train"))
    assert data.real(["a"], KeyedRNG(0, rows=[0]), "test") is None


def test_latents(make, tmp_path):
    prompts = make().prompts("train")
    for i, prompt in enumerate(prompts):
        latents = {"latents": torch.full((16, 3, 4, 6), float(i), dtype=torch.bfloat16)}
        safetensors.torch.save_file(latents, tmp_path / latents_name(prompt))
    data = make(latents=str(tmp_path))
    sample = data.sample(KeyedRNG(1, rows=range(5)), "train", videos=True)
    assert sample.video.shape == (5, 16, 3, 4, 6)
    assert sample.video.dtype == torch.float32
    assert sample.video[:, 0, 0, 0, 0].tolist() == [prompts.index(p) for p in sample.prompts]
    before = data.fingerprint()
    assert before != make().fingerprint()
    other = {"latents": torch.full((16, 3, 4, 6), 9.0, dtype=torch.bfloat16)}
    for prompt in (prompts[0], prompts[-1]):  # of the same size
        safetensors.torch.save_file(other, tmp_path / latents_name(prompt))
        assert before != (before := make(latents=str(tmp_path)).fingerprint())


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_data_that_is_not_there(make, tmp_path):
    with pytest.raises(ZooError) as error:
        make().sample(KeyedRNG(1, rows=[0]), "train", videos=True)
    assert "dataset.latents" in one_line(error)
    assert "dmd" in one_line(error)
    with pytest.raises(ZooError, match="there is no such folder"):
        make(latents=str(tmp_path / "none"))
    with pytest.raises(ZooError, match="it would hold latents of"):
        make(latents=str(tmp_path)).sample(KeyedRNG(1, rows=[0]), "train", videos=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"cut", "an incomplete or corrupt safetensors file"), (None, "has no tensor 'latents'")],
)
def test_damaged_latents(make, tmp_path, content, words):
    for prompt in make().prompts("train"):
        path = tmp_path / latents_name(prompt)
        if content is None:
            safetensors.torch.save_file({"x": torch.zeros(1)}, path)
        else:
            path.write_bytes(content)
    with pytest.raises(ZooError, match=words) as error:
        make(latents=str(tmp_path)).sample(KeyedRNG(1, rows=[0]), "train", videos=True)
    one_line(error)


def test_wrong_files(make, tmp_path):
    with pytest.raises(ZooError, match="there is no such file"):
        make(file=str(tmp_path / "none.txt"))
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    with pytest.raises(ZooError, match="2 different prompts are too few") as error:
        make(file=str(tmp_path / "few.txt"))
    one_line(error)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ZooError, match="not a text file"):
        make(file=str(tmp_path / "binary.txt"))
