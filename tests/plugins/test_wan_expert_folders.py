"""Folders of Wan 2.2's experts: of one alone, of the wrong one, with a boundary of their own."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from salt_zoo.core.base.errors import ZooError
from tests.plugins.test_wan_a14b import make_backbone, save_tiny

SIZE = "wan2.2-t2v-a14b"
PARTS = {"high": "transformer", "low": "transformer_2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(SIZE, tmp_path_factory.mktemp("tiny") / "a14b")


@pytest.fixture(scope="module")
def alone(zoo, folder, tmp_path_factory):
    """By side and kind, a folder of the expert alone."""
    root = tmp_path_factory.mktemp("alone")
    found = {}
    for side, part in PARTS.items():
        backbone = make_backbone(zoo, SIZE, folder, expert=side)
        network = backbone.network("student")
        backbone.save(network, root / side / "student")
        backbone.export(network, root / side / "exported", "diffusers")
        found[side] = {
            "part": folder / part,
            "student": root / side / "student",
            "student's transformer": root / side / "student" / "transformer",
            "exported": root / side / "exported",
        }
    return found


def same(network, other):
    mine, theirs = network.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("side", PARTS)
@pytest.mark.parametrize("kind", ["part", "student", "student's transformer", "exported"])
def test_one_expert_from_a_folder_of_it(side, kind, zoo, folder, alone):
    """As first weights, whole and in slices, and as a checkpoint."""
    place = alone[side][kind]
    wanted = make_backbone(zoo, SIZE, folder, expert=side)
    backbone = make_backbone(zoo, SIZE, place, expert=side, codecs=str(folder))
    network = wanted.network("teacher")
    assert same(backbone.network("teacher"), network) and same(wanted.load(place), network)
    stored = backbone.stored_weights("teacher")
    assert stored.tensors.keys() == network.state_dict().keys()
    assert any(name.startswith(PARTS[side]) for name in backbone.fingerprint())


@pytest.mark.parametrize(("side", "other"), [("high", "low"), ("low", "high")])
@pytest.mark.parametrize("kind", ["student", "student's transformer", "exported"])
def test_the_other_expert_is_refused(side, other, kind, zoo, folder, alone):
    place = alone[side][kind]
    backbone = make_backbone(zoo, SIZE, folder, expert=other)
    words = rf"is the expert for {side} noise .* backbone\.options\.expert is {other}; set it to"
    for read in (
        lambda: make_backbone(zoo, SIZE, place, expert=other, codecs=str(folder)),
        lambda: backbone.load(place),
    ):
        with pytest.raises(ZooError, match=words) as refused:
            read()
        assert "\n" not in str(refused.value) and str(place) in str(refused.value)


def test_the_command_refuses_the_other_expert(folder, alone, cli, tmp_path):
    command = ("export", "--checkpoint", alone["low"]["exported"], "--backbone", "wan",
               "--size", SIZE, "--format", "wan", "--out", tmp_path / "a.safetensors")  # fmt: skip
    options = [f"backbone.options.{key}={value}" for key, value in
               {"weights": folder, "height": 32, "width": 48, "frames": 9}.items()]  # fmt: skip
    sets = [word for option in options for word in ("--set", option)]
    ended = cli(*command, *sets, "--set", "backbone.options.expert=high")
    assert ended.code == 2 and "is the expert for low noise" in ended.error
    assert cli(*command, *sets, "--set", "backbone.options.expert=low").code == 0


@pytest.mark.parametrize("lacks", [["transformer_2"], ["transformer_2", "model_index.json"]])
@pytest.mark.parametrize("expert", ["low", "both"])
def test_a_pipeline_that_lacks_an_expert_has_no_other_in_its_place(
    expert, lacks, zoo, folder, tmp_path
):
    """Its index may name the one that is missing; of both, a folder of one is not enough either."""
    cut = tmp_path / "cut"
    shutil.copytree(folder, cut, ignore=shutil.ignore_patterns(*lacks))
    places = [cut] if expert == "low" else [cut, folder / "transformer"]
    for place in places:
        with pytest.raises(ZooError, match="has no whole transformer_2"):
            make_backbone(zoo, SIZE, place, expert=expert).network("teacher")


@pytest.fixture
def moved(folder, tmp_path):
    """A pipeline whose experts meet at 0.5."""
    there = tmp_path / "moved"
    shutil.copytree(folder, there)
    index = json.loads((there / "model_index.json").read_text())
    (there / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": 0.5}))
    return there


def test_the_boundary_is_the_folders(zoo, folder, moved, tmp_path):
    """Of first weights, of a student saved with them, and of one whose pipeline says nothing."""
    import diffusers

    backbone, published = make_backbone(zoo, SIZE, moved), make_backbone(zoo, SIZE, folder)
    network = backbone.network("student")
    assert network.boundary == backbone.empty_network("student").boundary == 0.5
    assert published.network("student").boundary == 0.875
    assert "boundary_ratio" not in published.fingerprint()
    assert backbone.fingerprint() == {**published.fingerprint(), "boundary_ratio": "0.5"}
    backbone.save(network, tmp_path / "student")
    backbone.export(network, tmp_path / "exported", "diffusers")
    pipe = diffusers.WanPipeline.from_pretrained(tmp_path / "student")
    assert pipe.config.boundary_ratio == 0.5
    for place in (tmp_path / "student", tmp_path / "exported", moved):
        assert published.load(place).boundary == 0.5
        again = make_backbone(zoo, SIZE, place, codecs=str(folder))
        assert again.network("teacher").boundary == 0.5
    assert backbone.load(folder).boundary == 0.875


@pytest.mark.parametrize("value", [0, 1.5, "half", True])
def test_a_boundary_that_is_none_is_refused(value, zoo, moved):
    path = moved / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boundary_ratio": value}))
    with pytest.raises(ZooError, match=r"index\.json: boundary_ratio is .* between 0 and 1"):
        make_backbone(zoo, SIZE, moved)
