"""Encoded prompts on disk, in memory and on the device."""

from __future__ import annotations

import pytest
import torch

from salt_zoo_wan.transformer import prompt_cache as encodings
from salt_zoo_wan.transformer.prompt_cache import MAX_TOKENS, PromptCache, default_folder


def states(seed, tokens=3):
    return torch.randn(tokens, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kept", [True, False])
def test_rows_are_padded_with_zeros(tmp_path, kept):
    known = PromptCache(tmp_path if kept else None)
    assert known.missing(["a", "b", "a"]) == ["a", "b"]
    known.add("a", states(0))
    known.add("b", states(1, 5))
    rows = known.rows(["b", "a", "b"], "cpu")
    assert rows.shape == (3, MAX_TOKENS, 4) and rows.dtype == torch.float32
    assert torch.equal(rows[1, :3], states(0)) and not rows[1, 3:].any()
    assert torch.equal(rows[0], rows[2]) and torch.equal(rows[0, :5], states(1, 5))


def test_a_later_run_reads_them_and_makes_damaged_ones_anew(tmp_path):
    PromptCache(tmp_path).add("a", states(0))
    later = PromptCache(tmp_path)
    assert later.missing(["a"]) == later.unread(["a"]) == []
    assert torch.equal(later.rows(["a"], "cpu")[0, :3], states(0))
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 4  # one bit of a number
    file.write_bytes(content)
    assert PromptCache(tmp_path).unread(["a"]) == ["a"]


def test_memory_does_not_grow_with_the_prompts(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "IN_MEMORY", 4 * states(0).nbytes)
    known = PromptCache(tmp_path)
    prompts = [f"{n}" for n in range(encodings.ON_DEVICE + 6)]
    for n, prompt in enumerate(prompts):
        known.add(prompt, states(n))
    assert len(known._known) == 4
    rows = known.rows(prompts, "cpu")
    assert torch.equal(rows[0, :3], states(0)) and torch.equal(rows[-1, :3], states(len(rows) - 1))
    assert len(known._known) == 4 and len(known._padded) == encodings.ON_DEVICE


def test_a_row_made_while_sampling_can_be_trained_with():
    known = PromptCache(None)
    known.add("a", states(0))
    with torch.inference_mode():
        known.rows(["a"], "cpu")
    (known.rows(["a"], "cpu") * torch.ones((), requires_grad=True)).sum().backward()


def test_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "salt-zoo" / "text"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert default_folder() is None
