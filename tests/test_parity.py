"""Parity with the committed reference values, and that the command notices what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch

from tests.parity.__main__ import SUBSET, compare, family, main
from tests.parity.goldens import Check

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "goldens"


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "goldens"
    shutil.copytree(SUBSET, folder)
    return folder


def leave(folder, *names):
    """What belongs to these cases alone: the others' checks take time."""
    kept = {family(name) for name in names}
    for path in folder.glob("*.safetensors"):
        if family(path.stem) not in kept and not path.stem.endswith("weights"):
            path.unlink()


def alter(folder, name, key, change):
    path = folder / f"{name}.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors[key] = change(tensors[key])
    safetensors.torch.save_file(tensors, path)


def test_the_committed_subset_agrees(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    for case in (
        "g1_bidirectional",
        "g2_causal_kvcache",
        "g3_local_window_sink/ll_infer",
        "g4_causal_training_masks",
        "g5_scheduler",
        "g6_dmd/cfg3_mask",
        "g7_semigroup_loss/seg4",
        "g8_alignment_losses/trd_margin0.1",
        "g9_rollouts/salt_8step_exit1_sde",
        "g9_rollouts/salt_2step_exit1_ref4_noise_aligned_b",
    ):
        assert case in printed
    assert " NO" not in printed


def test_the_committed_subset_is_small():
    assert sum(path.stat().st_size for path in SUBSET.iterdir()) <= 3.2e6


@pytest.mark.skipif(not BESIDE.is_dir(), reason="the full set does not lie beside the repository")
def test_the_full_set_agrees():
    checks = [one for one in compare(BESIDE) if isinstance(one, Check)]
    assert len(checks) > 200
    assert [one for one in checks if not one.passed] == []


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("g1_bidirectional", "out/velocity"),
        ("g1_bidirectional", "out/block0_output"),
        ("g1_bidirectional_weights", "blocks.2.ffn.0.weight"),
        ("g2_causal_kvcache", "in/context"),
        ("g2_causal_kvcache", "out/cache_v.2"),
        ("g3_local_window_sink", "out/ll_infer/v_b"),
        ("g4_causal_training_masks", "in/aug_t"),
        ("g5_scheduler", "out/sigmas_shift8"),
        ("g6_dmd", "out/cfg3_mask/dloss_dx"),
        ("g6_dmd", "in/real_x0_uncond"),
        ("g7_semigroup_loss", "seg2_exit5/dloss_dv1"),
        ("g7_semigroup_loss", "seg4_exit2/v2"),
        ("g8_alignment_losses", "in/student"),
        ("g8_alignment_losses", "trd_margin0.1/grad"),
        ("g8_alignment_losses", "mmd_rbf_sigma2/loss"),
        ("g9_rollouts", "sf_inference_4step/draws"),
        ("g9_rollouts", "salt_8step_exit1_sde/grad_noleak/blocks.1.modulation"),
        ("g9_rollouts", "salt_2step_exit1_ref4_noise_aligned_b/drift_target"),
    ],
)
def test_a_changed_tensor_is_a_miss(copy, capsys, name, key):
    leave(copy, name)
    alter(copy, name, key, lambda tensor: tensor * 1.001)
    assert main([str(copy)]) == 1
    assert " NO" in capsys.readouterr().out


def test_a_changed_choice_of_times_is_a_miss(copy):
    leave(copy, "g7_semigroup_loss")
    path = copy / "g7_semigroup_loss.json"
    facts = json.loads(path.read_text())
    facts["sampling_sets"]["num_segments_4"]["8_step_per_chunk_float"]["2"][0]["t_end"] = 750.0
    path.write_text(json.dumps(facts))
    assert main([str(copy)]) == 1


def test_a_value_that_is_not_finite_is_a_miss(copy):
    leave(copy, "g6_dmd")
    alter(copy, "g6_dmd", "out/noisy_latent", lambda tensor: tensor / 0)
    assert main([str(copy)]) == 1


def test_what_is_not_covered_is_said(copy, capsys):
    leave(copy, "g5_scheduler", "g6_dmd")
    shutil.copy(copy / "g5_scheduler.safetensors", copy / "g0_new.safetensors")
    alter(copy, "g6_dmd", "out/noisy_latent", lambda tensor: tensor)
    tensors = safetensors.torch.load_file(copy / "g6_dmd.safetensors")
    tensors["out/new_quantity"] = tensors["out/timestep"].clone()
    safetensors.torch.save_file(tensors, copy / "g6_dmd.safetensors")
    assert main([str(copy)]) == 0
    printed = capsys.readouterr().out
    assert "skipped g0_new" in printed
    assert "skipped g6_dmd: new_quantity" in printed
    assert "skipped g5_scheduler: training_weight" in printed


def _missing(folder):
    return folder / "missing"


def _empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def _truncated(folder):
    path = folder / "g6_dmd.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    return folder


def _no_facts(folder):
    (folder / "g7_semigroup_loss.json").unlink()
    return folder


def _lacks_an_input(folder):
    path = folder / "g5_scheduler.safetensors"
    tensors = safetensors.torch.load_file(path)
    del tensors["in/v"]
    safetensors.torch.save_file(tensors, path)
    return folder


def _other_weights(folder):
    shutil.copy(folder / "g6_dmd.safetensors", folder / "g1_bidirectional_weights.safetensors")
    return folder


@pytest.mark.parametrize(
    "spoil", [_missing, _empty, _truncated, _no_facts, _lacks_an_input, _other_weights]
)
def test_a_wrong_folder_is_one_line(copy, capsys, spoil):
    leave(copy, "g1_bidirectional", "g5_scheduler", "g6_dmd", "g7_semigroup_loss")
    assert main([str(spoil(copy))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
