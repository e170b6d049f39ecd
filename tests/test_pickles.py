"""Files of tensors from elsewhere: no code is run, and an error is all that is said."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch

from salt_zoo.io.files.pickles import load_pickle


class Code:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("content", [Code(), {"x": Code()}, [1.5], {"x": {1, 2}}])
def test_a_pickle_of_any_protocol_is_an_error_without_warnings(protocol, content, tmp_path, capsys):
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps(content, protocol))
    with warnings.catch_warnings(record=True) as told, pytest.raises(Exception):  # noqa: B017
        warnings.simplefilter("always")
        load_pickle(path)
    assert not told
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("mmap", [False, True])
def test_tensors_come_back(mmap, tmp_path):
    torch.save({"x": torch.arange(3)}, tmp_path / "w.pt")
    assert torch.equal(load_pickle(tmp_path / "w.pt", mmap)["x"], torch.arange(3))
