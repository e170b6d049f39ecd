"""`salt-zoo prepare text`: its encodings are the encoder's, in any form of prompts."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.networks.condition import encode, unconditional
from salt_zoo.io.packed_reader import PackedReader
from salt_zoo.training.data.prepared_text import PreparedText
from tests.plugins.test_wan_published_sizes import make_backbone
from tests.preparation.conftest import same_weights

pytestmark = pytest.mark.usefixtures("one_zoo")

DIGITS = ("--set", "backbone=wan", "--set", "dataset=digits", "--set", "shard_size=60")
PROMPTS = ["a red fox", 'waves, at "night"', "ein Vögelchen"]


@pytest.fixture
def prepare(cli, tmp_path):
    """Prepares the digits' prompts in a folder."""

    def run(name="text", *more):
        return cli("prepare", "text", "--out", tmp_path / name, "--device", "cpu", *DIGITS, *more)

    return run


def of_wan(folder, **options):
    """`--set` for a tiny Wan in a folder."""
    options = {"weights": folder, "height": 32, "width": 48, "frames": 9, **options}
    inner = ", ".join(f"{key}: {value}" for key, value in options.items())
    return "--set", "backbone={name: wan, size: wan2.1-t2v-1.3b, options: {" + inner + "}}"


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_encodings_are_the_text_encoders(wan, tiny_wan, zoo, cli, tmp_path, monkeypatch):
    from salt_zoo_wan.encoders.text_encoder import TextEncoder

    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), "utf-8")
    cache = tmp_path / "cache"
    made = of_wan(tiny_wan, text_cache=cache)
    file = ("--set", f"prompts={tmp_path / 'prompts.txt'}")
    ended = cli("prepare", "text", "--out", tmp_path / "text", "--device", "cpu", *made, *file)
    assert (ended.code, ended.out) == (0, f"{tmp_path / 'text'}\n"), ended.err
    assert not [*cache.rglob("*.safetensors")]  # they are kept once
    everything = [wan.negative_prompt, "", *PROMPTS]
    assert PackedReader(tmp_path / "text").prompts == everything
    direct = {prompt: wan.encode_prompts([prompt])["text"][0] for prompt in everything}
    nothing = unconditional(wan, 2)["text"]
    prepared = make_backbone(zoo, weights=str(tiny_wan))
    monkeypatch.setattr(TextEncoder, "_load", lambda *args: pytest.fail("it was loaded"))
    PreparedText(tmp_path / "text").bind(prepared)
    found = encode(prepared, [*PROMPTS, PROMPTS[0]])["text"]
    assert found.shape == (4, 512, 32) and found.dtype == torch.float32
    for row, prompt in zip(found, [*PROMPTS, PROMPTS[0]], strict=True):
        torch.testing.assert_close(row, direct[prompt], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(unconditional(prepared, 2)["text"], nothing, rtol=1e-5, atol=1e-6)
    # the padding takes no space: a token is a letter here, and there are two special ones at most
    rows = pyarrow.parquet.read_table(tmp_path / "text" / "index.parquet")["text.rows"].to_pylist()
    assert rows[2] == len(PROMPTS[0]) + 1


def test_encodings_of_another_encoder_are_refused(wan, tiny_wan, zoo, cli, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_wan, other)
    weights = other / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    tensors["shared.weight"] += 1
    save_file(tensors, weights, {"format": "pt"})
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), "utf-8")
    file = ("--set", f"prompts={tmp_path / 'prompts.txt'}")
    out = ("--out", tmp_path / "text", "--device", "cpu")
    assert cli("prepare", "text", *out, *of_wan(other), *file).code == 0
    with pytest.raises(ZooError, match=r"another text encoder .*text_encoder/model.safetensors is"):
        PreparedText(tmp_path / "text").bind(wan)
    before = content(tmp_path / "text")
    ended = cli("prepare", "text", *out, *of_wan(tiny_wan), *file)
    assert ended.code == 2 and "was prepared otherwise (encoder.text_encoder/" in ended.error
    assert content(tmp_path / "text") == before


@pytest.mark.parametrize("form", ["txt", "csv", "jsonl", "parquet", "hub"])
def test_forms_of_prompts(form, cli, tmp_path):
    prompts = [f"a {digit} moving up slowly" for digit in range(5)]
    table = pd.DataFrame({"id": range(5), "caption": prompts, "video": [b"x"] * 5})
    place = tmp_path / f"prompts.{form}"
    if form == "txt":
        place.write_text("\n".join(prompts))
    elif form == "csv":
        table.drop(columns="video").to_csv(place, index=False)
    elif form == "jsonl":
        place.write_text("\n".join(json.dumps({"caption": prompt}) for prompt in prompts))
    elif form == "parquet":
        table.to_parquet(place)
    else:
        (place / "data").mkdir(parents=True)
        (place / "README.md").write_text("a card")
        (place / "dataset_infos.json").write_text("{}")
        for part in range(2):
            rows = table[3 * part : 3 * part + 3]
            rows.to_parquet(place / "data" / f"train-0000{part}-of-00002.parquet")
        table[:1].assign(caption="x").to_parquet(place / "data" / "test-00000-of-00001.parquet")
    chosen = ("--set", "backbone=wan", "--set", f"prompts={place}")
    ended = cli("prepare", "text", "--out", tmp_path / "text", "--device", "cpu", *chosen)
    assert ended.code == 0, ended.err
    assert PackedReader(tmp_path / "text").prompts == ["", *prompts]


def test_a_run_names_backbone_and_dataset(write_run, cli, tmp_path):
    run = write_run()
    ended = cli("prepare", "text", run, "--out", tmp_path / "text", "--device", "cpu")
    assert ended.code == 0 and len(PackedReader(tmp_path / "text").prompts) == 161


def test_a_run_on_prepared_text_is_the_run(prepare, train, tmp_path):
    assert prepare().code == 0
    plain = train(tmp_path / "plain")
    execution = {"prepared_text": str(tmp_path / "text")}
    prepared = train(tmp_path / "prepared", execution=execution)
    assert prepared.backbone.encodings is not None
    assert same_weights(plain, prepared)


def test_a_run_of_the_folder_alone_resumes_bitwise(prepare, run_content, resumed_bitwise, tmp_path):
    """The dataset `prepared` of text, for a data-free method; its rows are read ahead."""
    assert prepare().code == 0
    run = run_content()
    run["method"] = {"name": "dmd", "steps": 2, "fake_score": {"updates": 1}}
    run["dataset"] = {"name": "prepared", "folder": str(tmp_path / "text")}

    whole = resumed_bitwise(run)
    prompts = set(whole.dataset.prompts("train"))
    assert len(prompts) == 160 - 2 * 16 and "" not in prompts


def test_a_damaged_shard_is_named_and_made_again(prepare, zoo, tmp_path):
    assert prepare().code == 0
    whole, written = content(tmp_path / "text"), times(tmp_path / "text")
    file = tmp_path / "text" / "text-00001.safetensors"
    harmed = bytearray(file.read_bytes())
    harmed[-200] ^= 1
    file.write_bytes(harmed)
    reader = PackedReader(tmp_path / "text")
    reader.read(0)
    with pytest.raises(ZooError, match=r"text-00001.safetensors: (its item|incomplete)") as caught:
        [reader.read(item) for item in range(60, 120)]
    assert "\n" not in str(caught.value) and "salt-zoo prepare text" in str(caught.value)
    assert prepare().code == 0
    assert content(tmp_path / "text") == whole
    again = times(tmp_path / "text")
    assert [name for name in written if again[name] != written[name]] == [file.name]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda a: (a / "text-00002.safetensors").unlink(), "00002.safetensors: there is no such"),
        (lambda a: (a / "index.parquet").unlink(), "is not finished"),
        (lambda a: (a / "index.parquet").write_bytes(b"no"), "index.parquet: incomplete or corr"),
        (lambda a: (a / "prepared.json").unlink(), "holds nothing that 'salt-zoo prepare'"),
        (lambda a: (a / "prepared.json").write_text("{"), "prepared.json: corrupt"),
    ],
)
def test_folders_that_are_not_whole(harm, message, prepare, tmp_path):
    assert prepare().code == 0
    harm(tmp_path / "text")
    with pytest.raises(ZooError, match=message) as caught:
        PackedReader(tmp_path / "text")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "backbone=wan"), "give either dataset or prompts"),
        (("--set", "dataset=digits"), "prepare text: backbone: this key is required"),
        ((*DIGITS, "--set", "prompts=x.txt"), "give either dataset or prompts"),
        (("--set", "backbone=wan", "--set", "prompts=none.txt"), "none.txt: there is no such file"),
        ((*DIGITS, "--set", "shard=3"), "shard: unknown key"),
    ],
)
def test_mistakes(arguments, message, cli, tmp_path):
    ended = cli("prepare", "text", "--out", tmp_path / "a", "--device", "cpu", *arguments)
    assert ended.code == 2 and message in ended.error
    assert not (tmp_path / "a").exists()


def test_training_names_the_command(wan, zoo, monkeypatch):
    from salt_zoo.config.training import TrainingConfig
    from salt_zoo.training.data import unprepared

    dataset = zoo.datasets.create("prompts", zoo.datasets.configure("prompts", {}, "test"), zoo)
    method = zoo.methods.create("dmd", zoo.methods.configure("dmd", {}, "test"), zoo)
    config = TrainingConfig(updates=10, batch_size=2)
    assert unprepared.unprepared(method, wan, dataset, config) is None  # too few to matter
    monkeypatch.setattr(unprepared, "MANY", 30)
    line = unprepared.unprepared(method, wan, dataset, config)
    assert "up to 32 prompts" in line and "salt-zoo prepare text" in line
    wan.encodings = set(dataset.prompts("train"))
    assert unprepared.unprepared(method, wan, dataset, config) is None
