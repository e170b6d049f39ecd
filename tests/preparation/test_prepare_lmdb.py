"""LMDB folders of CausVid's and Self Forcing's form, read once into folders of ours."""

from __future__ import annotations

import json
import signal
import sys

import numpy as np
import pytest
import torch

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.core.flow import step_list
from salt_zoo.io.latent_lmdb import open_lmdb
from salt_zoo.io.packed_reader import PackedReader
from salt_zoo.plugin.manager import load_zoo
from salt_zoo_ode.dataset import Trajectories, TrajectoriesConfig
from salt_zoo_ode.store import TrajectoryFolder, read_folder
from tests.preparation.lmdb_files import write_lmdb
from tests.two_processes import ROOT, run_in_two_processes

pytestmark = pytest.mark.usefixtures("one_zoo")

#: The toy's latents are [2, 6, 2, 2]: channels, frames, height, width.
STATES, FRAMES, CHANNELS, SIZE = 5, 6, 2, 2
PROMPTS = ["one", "ein Vögelchen", "one", "two, with a comma", "three"]
PLUGIN = ("-p", "tests.blocks.plugin")


def rows(count=5, states=STATES, seed=0):
    draws = np.random.default_rng(seed).standard_normal
    return draws((count, states, FRAMES, CHANNELS, SIZE, SIZE)).astype(np.float16)


@pytest.fixture(scope="module")
def toys():
    return load_zoo(["tests.blocks.plugin"])


@pytest.fixture
def lmdb(tmp_path):
    return write_lmdb(tmp_path / "lmdb", PROMPTS, rows())


def words(folder, lmdb, **changes):
    """`prepare trajectories` of an LMDB for the toy; None leaves an option out."""
    options = {
        "backbone": "toy-blocks",
        "dataset": "toy-blocks",
        "lmdb": lmdb,
        "timestep_shift": 8,
        "batch_size": 2,
    } | changes
    kept = {key: value for key, value in options.items() if value is not None}
    sets = [word for key, value in kept.items() for word in ("--set", f"{key}={value}")]
    return [
        *("prepare", "trajectories", *PLUGIN, "--out", str(folder), "--device", "cpu"),
        *map(str, sets),
    ]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_trajectories_are_theirs_in_our_layout(cli, lmdb, tmp_path):
    before = content(lmdb)
    ended = cli(*words(tmp_path / "ode", lmdb))
    assert (ended.code, ended.out) == (0, f"{tmp_path / 'ode'}\n"), ended.err
    assert content(lmdb) == before  # no lock file either
    folder = read_folder(tmp_path / "ode")
    folder.check()
    assert folder.header["prompts"] == PROMPTS and folder.count == len(PROMPTS)
    found = folder.read(range(len(PROMPTS)))
    assert found.shape == (5, STATES, CHANNELS, FRAMES, SIZE, SIZE)
    assert found.dtype == torch.float32
    theirs = torch.from_numpy(rows()).float()
    for state in range(STATES):  # from noise to the clean end, channels before frames
        for frame in range(FRAMES):
            assert torch.equal(found[:, state, :, frame], theirs[:, state, frame])
    # as large as theirs
    assert folder.file(0).stat().st_size < 2 * rows(2).nbytes + 1000


def test_their_times_are_those_of_our_step_list(cli, lmdb, tmp_path):
    """The schedulers of `generate_ode_pairs.py`, and of training on its pairs: shift 8, 48 of 48
    steps whose states 0, 12, 24 and 36 are kept; [1000, 750, 500, 250] warped by 1000 steps."""
    ended = cli(*words(tmp_path / "ode", lmdb))
    assert ended.code == 0 and "to be at times 1, 0.96, 0.8889, 0.7273 and 0" in ended.err
    found = np.array(read_folder(tmp_path / "ode").times)

    def warped(steps):
        sigmas = np.linspace(1, 0, steps + 1)[:-1]
        return 8 * sigmas / (1 + 7 * sigmas)

    np.testing.assert_allclose(found, warped(48)[[0, 12, 24, 36]], rtol=0, atol=1e-12)
    timesteps = np.append(1000 * warped(1000), 0)
    denoising_steps = np.array([1000, 750, 500, 250])
    np.testing.assert_allclose(1000 * found, timesteps[1000 - denoising_steps], rtol=0, atol=1e-9)
    assert timesteps[1000 - 0] == 0  # the clean end, which our times do not name


def test_a_student_is_trained_on_them(cli, train, toys, tmp_path):
    prompts = ["one", "two", "one", "two", "two"]
    lmdb = write_lmdb(tmp_path / "lmdb", prompts, rows())
    assert cli(*words(tmp_path / "ode", lmdb)).code == 0

    def run(name, shift):
        return train(
            tmp_path / name,
            toys,
            method={"name": "ode-regression", "of": "dataset", "timestep_shift": shift},
            backbone="toy-blocks",
            dataset={"name": "trajectories", "folder": str(tmp_path / "ode")},
            training={"updates": 2},
        )

    assert all(log["student/loss"] > 0 for log in run("run", 8.0).history)
    dataset = Trajectories(TrajectoriesConfig(folder=tmp_path / "ode"), toys)
    sample = dataset.sample(KeyedRNG(0, rows=range(20)), "train", False)
    assert sample.trajectory_times == tuple(step_list(4, 8.0))
    for prompt, trajectory in zip(sample.prompts, sample.trajectory, strict=True):
        mine = torch.from_numpy(rows()[[one == prompt for one in prompts]]).float().transpose(2, 3)
        assert any(torch.equal(trajectory, one) for one in mine)
    assert dataset.prompts("train") == ["one", "two"]
    assert dataset.prompts("validation") == ["one", "two"]  # the dataset's that was named
    with pytest.raises(ZooError, match=r"kept at times \[1, 0.96, 0.8889, 0.7273\]"):
        run("other", 5.0)


def test_times_of_no_step_list(cli, train, toys, tmp_path):
    """CausVid's pairs: four states, of which the method is given the three times."""
    prompts, theirs = ["one", "two"] * 2, rows(4, states=4)
    lmdb = write_lmdb(tmp_path / "lmdb", prompts, theirs)
    listed = {"timestep_shift": None, "times": "[1, 0.757, 0.522]"}
    ended = cli(*words(tmp_path / "ode", lmdb, **listed))
    assert ended.code == 0 and "to be at times 1, 0.757, 0.522 and 0" in ended.err
    folder = read_folder(tmp_path / "ode")
    folder.check()
    assert folder.times == (1.0, 0.757, 0.522) and "timestep_shift" not in folder.header
    found = folder.read(range(4))
    assert torch.equal(found, torch.from_numpy(theirs).float().transpose(2, 3))

    # other times are other data
    ended = cli(*words(tmp_path / "ode", lmdb, **listed | {"times": "[1, 0.757, 0.5]"}))
    assert ended.code == 2 and "of another configuration (times" in ended.error

    def run(name, **method):
        return train(
            tmp_path / name,
            toys,
            method={"name": "ode-regression", "of": "dataset", **method},
            backbone="toy-blocks",
            dataset={"name": "trajectories", "folder": str(tmp_path / "ode")},
            training={"updates": 2, "checkpoint_every": 1},
        )

    trainer = run("run", times=[1, 0.757, 0.522])
    assert all(log["student/loss"] > 0 for log in trainer.history)
    assert run("run", times=[1, 0.757, 0.522]).history == trainer.history  # it is done
    refusal = r"at times \[1, 0.757, 0.522\] .* or method.times, to theirs"
    with pytest.raises(ZooError, match=refusal):
        run("other", steps=3)


def test_shards_follow_each_other_by_name(cli, lmdb, tmp_path):
    """As their `ShardingLMDBDataset` lists them; one without rows is passed over."""
    for name, of in {"shard_10": [0, 1], "shard_2": [3, 4], "shard_1": [2]}.items():
        write_lmdb(tmp_path / "shards" / name, [PROMPTS[row] for row in of], rows()[of])
    write_lmdb(tmp_path / "shards" / "shard_11", [], rows()[:0])
    assert cli(*words(tmp_path / "ode", tmp_path / "shards")).code == 0
    folder, order = read_folder(tmp_path / "ode"), [2, 0, 1, 3, 4]
    assert folder.header["prompts"] == [PROMPTS[row] for row in order]
    theirs = torch.from_numpy(rows()[order]).float().transpose(2, 3)
    assert torch.equal(folder.read(range(5)), theirs)


def test_an_interrupted_reading_goes_on(cli, lmdb, tmp_path, monkeypatch):
    assert cli(*words(tmp_path / "whole", lmdb)).code == 0
    write = TrajectoryFolder.write

    def interrupted(folder, shard, found):
        if shard == 1:
            signal.raise_signal(signal.SIGINT)
        write(folder, shard, found)

    monkeypatch.setattr(TrajectoryFolder, "write", interrupted)
    ended = cli(*words(tmp_path / "parts", lmdb))
    assert ended.code == 130 and "run the same command again" in ended.err
    monkeypatch.undo()
    kept = (tmp_path / "parts" / "000000.safetensors").stat().st_mtime_ns
    assert cli(*words(tmp_path / "parts", lmdb)).code == 0
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert (tmp_path / "parts" / "000000.safetensors").stat().st_mtime_ns == kept
    write_lmdb(lmdb, PROMPTS, rows(seed=1), images=np.zeros((5, 4096), np.uint8))
    ended = cli(*words(tmp_path / "parts", lmdb))
    assert ended.code == 2 and "of another configuration (lmdb is" in ended.error


@pytest.mark.slow
def test_two_processes_read_what_one_reads(cli, lmdb, tmp_path):
    latents = write_lmdb(tmp_path / "latents", PROMPTS, rows()[:, -1])
    for folder in ("alone", "together"):
        commands = [
            words(tmp_path / folder / "ode", lmdb, batch_size=1),
            of_latents(tmp_path / folder / "latents", latents, "--set", "shard_size=2"),
        ]
        if folder == "alone":
            assert [cli(*command).code for command in commands] == [0, 0]
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    script = ROOT / "tests" / "preparation" / "prepared_runs.py"
    run_in_two_processes(script, tmp_path / "commands.json")
    for kind in ("ode", "latents"):
        assert content(tmp_path / "together" / kind) == content(tmp_path / "alone" / kind), kind


def of_latents(folder, lmdb, *more):
    return [
        *("prepare", "latents", *PLUGIN, "--out", str(folder), "--device", "cpu"),
        *("--set", "backbone=toy-blocks", "--set", f"lmdb={lmdb}", *more),
    ]


@pytest.mark.parametrize("states", [None, STATES])
def test_latents(states, cli, tmp_path):
    """Of an LMDB of videos, and the clean ends of ODE pairs; in float16 they lose nothing."""
    whole = rows()
    stored = whole if states else whole[:, -1]
    lmdb = write_lmdb(tmp_path / "lmdb", PROMPTS, stored)
    for dtype in ("float32", "float16"):
        ended = cli(*of_latents(tmp_path / dtype, lmdb, "--set", f"dtype={dtype}"))
        assert ended.code == 0, ended.err
        reader = PackedReader(tmp_path / dtype, "latents")
        assert reader.prompts == PROMPTS
        for row in range(len(PROMPTS)):
            theirs = torch.from_numpy(whole[row, -1]).float().transpose(0, 1)
            assert torch.equal(reader.read(row)["latents"][0], theirs)


@pytest.mark.parametrize(
    ("option", "source"), [("count=3", "dataset"), ("seed=1", "dataset"), ("channels=1", "videos")]
)
def test_latents_of_an_lmdb_are_all_of_them(option, source, cli, lmdb, tmp_path):
    ended = cli(*of_latents(tmp_path / "out", lmdb, "--set", option))
    assert ended.code == 2 and f"{option.partition('=')[0]} is of {source}" in ended.error
    assert not (tmp_path / "out").exists()


def damage(lmdb, how):
    data = lmdb / "data.mdb"
    if how == "cut":
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    elif how == "no lmdb":
        data.write_bytes(b"no" * 9000)
    elif how == "gone":
        data.unlink()
    else:
        import lmdb as library

        key, value = how
        with (
            library.open(str(lmdb), map_size=1 << 26) as environment,
            environment.begin(write=True) as transaction,
        ):
            if value is None:
                transaction.delete(key.encode())
            else:
                transaction.put(key.encode(), value)


NOT_FINITE = np.full((STATES, FRAMES, CHANNELS, SIZE, SIZE), np.inf, np.float16).tobytes()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "data.mdb: is cut off: it has"),
        ("no lmdb", "data.mdb: cannot be opened as an LMDB"),
        ("gone", "holds no LMDB (a data.mdb, or folders that have one); see"),
        (("latents_shape", None), "has no latents_shape, which is written last"),
        (("latents_shape", b"5"), "latents_shape is '5'; expected rows, states"),
        (("latents_shape", b"\xff 5 6 2 2 2"), "expected rows, states"),
        (("latents_shape", b"0 5 6 2 2 2"), "holds no rows"),
        (("latents_shape", b"6 5 6 2 2 2"), "has no prompts_5_data of 6 rows"),
        (("latents_shape", b"5 5 2 6 2 2"), "its latents have 2 frames of 6 x 2 x 2, and the back"),
        (("latents_shape", b"5 4 6 2 2 2"), "have 4 states, and steps: 4 are 5 with the clean end"),
        (("latents_shape", b"5 6 2 2 2"), "holds latents of videos, not trajectories"),
        (("latents_3_data", b"short"), "latents_3_data has 5 bytes, and latents_shape"),
        (("latents_3_data", NOT_FINITE), "latents_3_data holds numbers that are not finite"),
        (("latents_3_data", None), "has no latents_3_data of 5 rows"),
        (("prompts_2_data", b"\xff"), "prompts_2_data is not text in UTF-8"),
    ],
)
def test_what_is_wrong_is_one_line(how, message, cli, lmdb, tmp_path):
    damage(lmdb, how)
    ended = cli(*words(tmp_path / "ode", lmdb))
    assert ended.code == 2 and message in ended.error
    if "latents_3" not in message:  # which is met on the way
        assert not (tmp_path / "ode").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestep_shift": None}, "an LMDB does not say its times; set timestep_shift to that"),
        ({"count": 3}, "count is of trajectories that are made here; with lmdb leave it out"),
        ({"of": "student-start"}, "of is of trajectories that are made here"),
        ({"lmdb": "none"}, "none: there is no such folder; see recipe trajectories: lmdb"),
        ({"steps": 3}, "have 5 states, and steps: 3 are 4"),
        (
            {"times": "[1, 0.757, 0.522]", "timestep_shift": None},
            "have 5 states, and times names 3, with the clean end 4; name 4",
        ),
        ({"times": "[1, 0.5]"}, "timestep_shift is of a step list; with lmdb and times leave it"),
    ],
)
def test_options_that_are_wrong(changes, message, cli, lmdb, tmp_path):
    ended = cli(*words(tmp_path / "ode", **{"lmdb": lmdb, **changes}))
    assert ended.code == 2 and message in ended.error
    assert not (tmp_path / "ode").exists()


def test_shards_of_different_shapes(lmdb, tmp_path):
    write_lmdb(tmp_path / "shards" / "a", PROMPTS, rows())
    write_lmdb(tmp_path / "shards" / "b", PROMPTS, rows(states=4))
    with (
        pytest.raises(ZooError, match=r"b: its latents are \[4, 6, 2, 2, 2\], and those of a"),
        open_lmdb(tmp_path / "shards", "lmdb"),
    ):
        pass


def test_without_the_package_it_names_the_command(cli, lmdb, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    for command in (words(tmp_path / "ode", lmdb), of_latents(tmp_path / "latents", lmdb)):
        ended = cli(*command)
        assert ended.code == 2 and "run: pip install 'salt-zoo[lmdb]'" in ended.error
