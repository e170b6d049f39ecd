"""A preparation that ends with a mistake before anything was made leaves no header: once it is
mended the same command works."""

from __future__ import annotations

import os

import pytest

SEVEN = "a 7 moving up-left slowly"
DIGITS = ("--set", "backbone={name: wan, size: digits}", "--device", "cpu")


@pytest.fixture
def prepare(cli, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "text"

    def run(*lines: str):
        prompts.write_text("\n".join(lines))
        sizes = ("--set", "batch_size=1", "--set", "shard_size=2")
        return cli("prepare", "text", "--set", f"prompts={prompts}", *DIGITS, *sizes, "--out", out)

    return run


def test_a_mistake_in_the_first_shard(prepare, tmp_path, monkeypatch):
    from salt_zoo_wan.backbone import WanBackbone

    usual = WanBackbone.encode_once

    def told(self, prompts):
        from salt_zoo.core.base.errors import ZooError

        if "" in prompts:
            raise ZooError("prompt '': is not understood")
        return usual(self, prompts)

    with monkeypatch.context() as patch:
        patch.setattr(WanBackbone, "encode_once", told)
        ended = prepare(SEVEN)
    assert ended.code == 2 and not (tmp_path / "text").exists()
    assert prepare(SEVEN, SEVEN.replace("7", "8")).code == 0


def test_what_was_made_before_a_mistake_is_kept(prepare, tmp_path):
    assert prepare(SEVEN, "a dog").code == 2
    assert sorted(os.listdir(tmp_path / "text")) == ["prepared.json", "text-00000.safetensors"]
    assert "was prepared otherwise" in prepare(SEVEN).error


def test_trajectories(cli, tmp_path, monkeypatch):
    """A network whose weights are not there is loaded when the header is written."""
    out = tmp_path / "trajectories"
    command = ("prepare", "trajectories", "--set", "dataset=digits", "--set", "count=1", *DIGITS)
    command = (*command, "--set", "teacher_steps=4", "--out", out)
    ended = cli(*command, "--set", f"backbone.options.weights={tmp_path}/nowhere")
    assert ended.code == 2 and not out.exists()


@pytest.fixture
def index(prepare, tmp_path):
    """Changes the columns of a finished folder's index; returns the error of who opens it."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from salt_zoo.core.base.errors import ZooError
    from salt_zoo.io.packed import INDEX
    from salt_zoo.io.packed_reader import PackedReader

    assert prepare(SEVEN, SEVEN.replace("7", "8")).code == 0
    path = tmp_path / "text" / INDEX
    whole = PackedReader(tmp_path / "text")

    def change(do):
        table = parquet.read_table(path)
        columns = {name: table[name].to_pylist() for name in table.column_names}
        do(columns)
        changed = pa.table(columns).replace_schema_metadata(table.schema.metadata)
        parquet.write_table(changed, path)
        with pytest.raises(ZooError) as raised:
            reader = PackedReader(tmp_path / "text")
            for item in range(len(whole.prompts)):
                reader.read(item)
        return str(raised.value)

    return change


def test_an_index_with_the_prompts_of_others(index, tmp_path):
    """Its digest is in the header: each prompt had another's encoding."""
    said = index(lambda columns: columns["prompt"].reverse())
    assert f"{tmp_path / 'text'}" in said and "its prompts are not those" in said


@pytest.mark.parametrize("column", ["crc", "shard", "prompt"])
def test_an_index_that_lacks_a_column(column, index):
    assert f"it lacks '{column}'" in index(lambda columns: columns.pop(column))
