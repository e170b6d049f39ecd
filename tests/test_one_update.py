"""The comparison of updates that `tests/test_gpu.py` makes between devices, on one device."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from salt_zoo.plugin.manager import load_zoo
from tests.one_update import TOLERANCES, differences, one_update, without_gradient
from tests.test_matrix import content


@pytest.fixture(scope="module")
def updates(tmp_path_factory):
    """The first update of DMD on a causal student: in two precisions, and from another seed."""
    folder, zoo, made = tmp_path_factory.mktemp("updates"), load_zoo(["tests.sizes.plugin"]), {}
    for name, precision, seed in (("exact", "fp32", 0), ("rough", "bf16", 0), ("other", "fp32", 1)):
        changes = content("dmd", "self-forcing", None) | {"seed": seed}
        changes["training"] |= {"updates": 1, "precision": precision}
        made[name] = one_update(changes, zoo, folder / name, "cpu")
    return made


def test_an_update_is_itself(updates):
    assert set(differences(updates["exact"], updates["exact"]).values()) == {0.0}


def of(role, found):
    return [difference for name, difference in found.items() if name.endswith(f"({role})")]


def test_bf16_is_within_its_tolerance(updates):
    found = differences(updates["rough"], updates["exact"])
    assert {"loss fake_score/loss", "loss student/loss"} < set(found)
    assert len(of("fake_score", found)) == 2 and len(of("student", found)) == 1
    assert all(difference < TOLERANCES["bf16"] for difference in found.values())
    assert of("student", found)[0] > TOLERANCES["fp32"]  # which would see it


def test_another_update_is_not(updates):
    found = differences(updates["other"], updates["exact"])
    assert all(
        difference > 0.5 for role in ("student", "fake_score") for difference in of(role, found)
    )


def test_a_lacking_gradient_is_named(updates):
    update = updates["exact"]
    assert without_gradient(update) == set()
    *first, last = update.gradients
    names = list(last)
    damaged = last | {names[0]: None, names[1]: torch.zeros_like(last[names[1]])}
    assert without_gradient(replace(update, gradients=[*first, damaged])) == set(names[:2])
