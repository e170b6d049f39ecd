"""`salt-zoo prepare trajectories` and the dataset `trajectories`: what is kept, and mistakes."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.protocols import Batch, TrainStep
from salt_zoo.plugin.manager import load_zoo
from salt_zoo_ode.dataset import Trajectories, TrajectoriesConfig
from salt_zoo_ode.method import OdeRegression, OdeRegressionConfig
from salt_zoo_ode.store import HEADER, Shard, TrajectoryFolder, read_folder

COUNT, SIZE = 7, 3
SHARDS = ["000000.safetensors", "000001.safetensors", "000002.safetensors"]


@pytest.fixture(scope="module")
def toys():
    return load_zoo(["tests.blocks.plugin", "tests.gaussian.plugin"])


@pytest.fixture
def make(cli):
    """Runs the recipe on the toy backbone."""

    def run(folder, backbone="toy-blocks", **options):
        options = {
            "backbone": backbone,
            "dataset": backbone,
            "count": COUNT,
            "batch_size": SIZE,
            "teacher_steps": 8,
            "guidance_scale": 2.0,
        } | options
        changes = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
        plugins = ("-p", "tests.blocks.plugin", "-p", "tests.gaussian.plugin")
        where = ("--out", folder, "--device", "cpu")
        return cli("prepare", "trajectories", *plugins, *where, *changes)

    return run


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def data(folder, zoo):
    return Trajectories(TrajectoriesConfig(folder=folder), zoo)


def test_what_is_kept(make, tmp_path):
    ended = make(tmp_path / "a")
    assert ended.code == 0 and ended.out.strip() == str(tmp_path / "a")
    folder = read_folder(tmp_path / "a")
    folder.check()
    assert sorted(content(tmp_path / "a")) == [*SHARDS, HEADER]
    assert folder.header["shape"] == [5, 2, 6, 2, 2] and folder.header["guidance_scale"] == 2.0
    assert folder.header["fingerprints"] == {"backbone": {"toy-blocks": "0"}, "dataset": {}}
    assert folder.header["prompts"] == ["one", "two"] * 3 + ["one"]
    assert [len(rows) for rows in folder.shards] == [3, 3, 1]
    assert folder.read([6, 0]).shape == (2, 5, 2, 6, 2, 2)
    assert folder.read([0]).dtype == torch.float32
    found = load_file(tmp_path / "a" / SHARDS[1])["trajectories"]
    assert torch.equal(folder.read([5, 3, 4]), found[[2, 0, 1]])


def test_an_interrupted_recipe_goes_on_bitwise(make, tmp_path, monkeypatch):
    make(tmp_path / "whole")
    write = TrajectoryFolder.write

    def interrupted(folder, shard, states):
        if shard == 1:
            signal.raise_signal(signal.SIGINT)
        write(folder, shard, states)

    monkeypatch.setattr(TrajectoryFolder, "write", interrupted)
    ended = make(tmp_path / "parts")
    assert ended.code == 130 and "run the same command again" in ended.err
    assert sorted(content(tmp_path / "parts")) == [SHARDS[0], HEADER]
    monkeypatch.undo()
    first = (tmp_path / "parts" / SHARDS[0]).stat().st_mtime_ns
    assert make(tmp_path / "parts").code == 0
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert (tmp_path / "parts" / SHARDS[0]).stat().st_mtime_ns == first
    # a damaged shard is made anew, and a finished folder is left alone
    (tmp_path / "parts" / SHARDS[2]).write_bytes(b"no")
    assert make(tmp_path / "parts").code == 0 and make(tmp_path / "parts").code == 0
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_passes_in_bf16_are_kept_as_float32(make, tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b", precision="bf16")
    exact, rough = read_folder(tmp_path / "a"), read_folder(tmp_path / "b")
    assert (exact.header["precision"], rough.header["precision"]) == ("fp32", "bf16")
    exact, rough = exact.read(range(COUNT)), rough.read(range(COUNT))
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1)


def test_rows_do_not_depend_on_their_number(make, tmp_path):
    make(tmp_path / "few", count=3)
    make(tmp_path / "many")
    rows = [0, 1, 2]
    few, many = read_folder(tmp_path / "few"), read_folder(tmp_path / "many")
    assert torch.equal(few.read(rows), many.read(rows))


@pytest.mark.parametrize("backbone", ["toy-blocks", "gaussian"])
@pytest.mark.parametrize("of", ["teacher", "student-start"])
def test_stored_trajectories_are_those_of_training(backbone, of, make, toys, tmp_path):
    make(tmp_path / "a", backbone, of=of, seed=3)
    folder = read_folder(tmp_path / "a")
    made = toys.backbones.create(backbone, toys.backbones.configure(backbone, {}, "test"), toys)
    start = "teacher" if of == "teacher" else "student"
    config = OdeRegressionConfig(of=of, teacher_steps=8, guidance_scale=2.0)
    rows = folder.shards[1]
    prompts = folder.header["prompts"][rows.start : rows.stop]
    step = TrainStep(
        role="student",
        index=0,
        networks={"teacher": made.network(start).requires_grad_(False)},
        batch=Batch(
            prompts,
            made.encode_prompts(prompts),
            made.encode_prompts([""] * SIZE),
            None,
        ),
        rng=KeyedRNG(3, ("trajectories",), rows),
        blocks=made.blocks(),
        latent_shape=made.latent_shape,
        backward=lambda loss: None,
    )
    found = OdeRegression(config, None)._states(step)
    assert torch.equal(found, folder.read(rows))
    other = replace(step, rng=KeyedRNG(4, ("trajectories",), rows))
    assert not torch.equal(OdeRegression(config, None)._states(other), found)


def test_the_dataset_gives_rows_by_keyed_draws(make, toys, tmp_path):
    make(tmp_path / "a")
    dataset, folder = data(tmp_path / "a", toys), read_folder(tmp_path / "a")
    rng = KeyedRNG(0, ("data",), range(40))
    sample = dataset.sample(rng, "train", False)
    rows = rng.randint(COUNT, "trajectory")
    assert set(rows) == set(range(COUNT))
    assert sample.video is None and sample.trajectory_times == folder.times
    assert torch.equal(sample.trajectory, folder.read(rows))
    assert sample.prompts == [folder.header["prompts"][row] for row in rows]
    again = dataset.sample(rng.for_rows(range(20, 40)), "train", False)
    assert torch.equal(again.trajectory, sample.trajectory[20:])


def test_prompts_are_encoded_ahead_without_reading_trajectories(
    make, toys, train, tmp_path, monkeypatch
):
    make(tmp_path / "a")
    dataset, rng = data(tmp_path / "a", toys), KeyedRNG(0, ("data",), range(9))
    for split in ("train", "validation"):
        assert dataset.draw_prompts(rng, split) == dataset.sample(rng, split, False).prompts
    trainer = train(
        tmp_path / "run",
        toys,
        method={"name": "ode-regression", "of": "dataset"},
        backbone="toy-blocks",
        dataset={"name": "trajectories", "folder": str(tmp_path / "a")},
        training={"updates": 1},
    )
    monkeypatch.setattr(TrajectoryFolder, "read", lambda *a: pytest.fail("it was read"))
    asked = []
    trainer.backbone.encode_ahead = asked.extend
    trainer._batches.encode_ahead(0)
    assert "" in asked and {"one", "two"} & set(asked)


def test_other_splits_are_those_of_the_prompts_dataset(make, toys, tmp_path):
    make(tmp_path / "a", "gaussian", count=1)
    dataset, rng = data(tmp_path / "a", toys), KeyedRNG(0, rows=range(2))
    assert dataset.prompts("train") == ["left"]
    assert dataset.prompts("validation") == ["left", "right"]
    real = dataset.real(["left", "right"], rng, "test")
    assert torch.equal(real, dataset.source.real(["left", "right"], rng, "test"))
    assert dataset.sample(rng, "validation", True).video is not None


def test_the_fingerprint_is_of_header_and_shards(make, toys, tmp_path):
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 1})):
        make(tmp_path / name, **changes)
    a, b, c = (data(tmp_path / name, toys).fingerprint() for name in "abc")
    assert a == b and a != c
    file = tmp_path / "b" / SHARDS[0]
    kept = load_file(file)
    kept["trajectories"][0, 0, 0, 0, 0, 0] += 1
    save_file(kept, file, metadata={"header": read_folder(tmp_path / "b")._digest})
    assert data(tmp_path / "b", toys).fingerprint() != a


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_scale": 3.0}, "guidance_scale is 2.0 there and 3.0 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"count": 8}, "count is 7 there and 8 here"),
        ({"steps": 2}, "shape is [5, 2, 6, 2, 2] there and [3, 2, 6, 2, 2] here"),
        ({"backbone": "gaussian"}, "backbone.covariance is None there and 'full' here"),
    ],
)
def test_a_folder_that_was_made_otherwise(changes, message, make, tmp_path):
    make(tmp_path / "a")
    before = content(tmp_path / "a")
    ended = make(tmp_path / "a", **changes)
    assert ended.code == 2 and message in ended.error
    assert "holds trajectories of another configuration" in ended.error
    assert content(tmp_path / "a") == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "toy-block"}, "unknown backbone 'toy-block'; did you mean 'toy-blocks'"),
        ({"backbone": 3}, "backbone: must be a name, or a group of keys with a 'name'"),
        ({"dataset": "{name: gaussian, x: 1}"}, "dataset.x: unknown key"),
        ({"of": "dataset"}, "of: should be 'teacher' or 'student-start'"),
        ({"count": 0}, "count: should be greater than or equal to 1"),
        ({"cuont": 1}, "cuont: unknown key; did you mean 'count'"),
    ],
)
def test_wrong_options(changes, message, make, tmp_path):
    options = {"dataset": "toy-blocks"} | changes
    backbone = options.pop("backbone", "toy-blocks")
    ended = make(tmp_path / "a", backbone, **options)
    assert ended.code == 2 and message in ended.error
    assert not (tmp_path / "a").exists()


def test_what_must_be_given(cli, tmp_path):
    ended = cli("prepare", "trajectories", "--out", tmp_path / "a")
    assert ended.code == 2 and "prepare trajectories: backbone: this key is required" in ended.error


def test_places_that_cannot_be_written_and_full_memory(make, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    ended = make(tmp_path / "file" / "a")
    assert ended.code == 2 and "is a file, not a folder" in ended.error

    def full(*arguments, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("salt_zoo_ode.recipe.draw_trajectories", full)
    ended = make(tmp_path / "a")
    assert ended.code == 1 and "not enough memory for batch_size 3" in ended.error


def break_header(folder, **changes):
    header = json.loads((folder / HEADER).read_text()) | changes
    kept = {key: value for key, value in header.items() if value is not None}
    (folder / HEADER).write_text(json.dumps(kept))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda a: (a / SHARDS[1]).unlink(), "holds 4 of 7 trajectories; make the rest with"),
        (
            lambda a: (a / SHARDS[1]).write_bytes((a / SHARDS[1]).read_bytes()[:-8]),
            r"000001.safetensors: damaged \(SafetensorError",
        ),
        (lambda a: break_header(a, seed=9), "000000.safetensors: belongs to another traj"),
        (
            lambda a: save_file(
                {"trajectories": torch.zeros(3, 1, 2)},
                a / SHARDS[0],
                metadata={"header": read_folder(a)._digest},
            ),
            r"has trajectories \[1, 2\] instead of \[5, 2, 6, 2, 2\]",
        ),
        (lambda a: (a / HEADER).unlink(), "holds no trajectories"),
        (lambda a: (a / HEADER).write_text("{"), r"trajectories.json: damaged \(JSONDecodeError"),
        (lambda a: break_header(a, format=2), "its format is 2, and this version reads 1"),
        (lambda a: break_header(a, times=None), r"damaged \(it lacks 'times'\)"),
        (lambda a: break_header(a, batch_size=0), r"json: damaged \(batch_size: "),
        (lambda a: break_header(a, batch_size="3"), r"json: damaged \(batch_size: "),
        (lambda a: break_header(a, prompts=3), r"json: damaged \(prompts: "),
        (lambda a: break_header(a, shape=[5, 2, -6, 2, 2]), r"json: damaged \(shape\.2: "),
        (lambda a: break_header(a, dataset=[]), r"json: damaged \(dataset: "),
    ],
)
def test_folders_that_are_not_whole(harm, message, make, toys, tmp_path):
    make(tmp_path / "a")
    harm(tmp_path / "a")
    with pytest.raises(ZooError, match=message) as caught:
        data(tmp_path / "a", toys)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0.3, 0.6, 1.0])
def test_a_bit_that_flips_later_is_found_when_the_row_is_read(place, make, tmp_path):
    make(tmp_path / "a")
    folder = read_folder(tmp_path / "a")
    path = tmp_path / "a" / SHARDS[0]
    whole, data_of = (
        bytearray(path.read_bytes()),
        8 + int.from_bytes(path.read_bytes()[:8], "little"),
    )
    at = data_of + int(place * (len(whole) - data_of - 1))
    whole[at] ^= 0x40
    path.write_bytes(whole)
    found = []
    for row in range(3):
        try:
            folder.read([row])
        except ZooError as error:
            found.append(str(error))
    (line,) = found
    assert f"{path}: its row" in line and "has changed since it was written" in line


def test_shards_of_older_versions_have_no_checksums(make, tmp_path):
    make(tmp_path / "a")
    folder, path = read_folder(tmp_path / "a"), tmp_path / "a" / SHARDS[0]
    before = folder.read([0, 1, 2])
    kept = {k: v for k, v in load_file(path).items() if not k.startswith("crc.")}
    save_file(kept, path, metadata={"header": folder._digest})
    assert torch.equal(folder.read([0, 1, 2]), before)


def test_mistakes_with_the_dataset(make, toys, tmp_path):
    with pytest.raises(ZooError, match=r"there is no such folder; make it with 'salt-zoo prepare"):
        data(tmp_path / "none", toys)
    make(tmp_path / "a")
    with pytest.raises(ZooError, match="the method needs videos and these are trajectories"):
        data(tmp_path / "a", toys).sample(KeyedRNG(0, rows=range(2)), "train", True)
    # the prompts' dataset is asked for only when it is needed
    alone = data(tmp_path / "a", load_zoo())
    assert alone.prompts("train") == ["one", "two"]
    with pytest.raises(ZooError, match="unknown dataset 'toy-blocks'"):
        alone.prompts("test")


def test_shards_of_a_wrong_shape_are_not_written(make, tmp_path):
    make(tmp_path / "a")
    with pytest.raises(ValueError, match="should be"):
        read_folder(tmp_path / "a").write(0, Shard(torch.zeros(1, 2)))
