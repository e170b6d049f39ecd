"""Reading files of weights without running code in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import safetensors.torch
import torch
from safetensors import SafetensorError

from salt_zoo.errors import ZooError

#: How files begin that often lie where weights should.
_OTHERS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file; fetch it with 'git lfs pull'"),
    (b"GGUF", "a quantised GGUF file; give .safetensors, .pt or .pth"),
    (b"{", "a text file (JSON); give the weights themselves: .safetensors, .pt or .pth"),
    (b"<", "a web page; fetch the file itself"),
)
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.\w+$")


def read_weights(path: Path) -> Mapping[str, Any]:
    """The content of a `.safetensors` file or of a pickle without code (`weights_only`).

    What a file is, its first bytes say, not its name.

    Raises:
        ZooError: it is missing, damaged, needs code to be run, or holds no named tensors.
    """
    if path.is_dir():
        raise ZooError(f"{path}: is a folder; give one file of weights")
    if not path.is_file():
        raise ZooError(f"{path}: there is no such file")
    if (part := _PART.search(path.name)) and int(part[2]) > 1:
        raise ZooError(
            f"{path}: part {int(part[1])} of {int(part[2])} of a model; give the model's diffusers "
            "folder or hub id, or one file that holds all of it"
        )
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise ZooError(f"{path}: is empty; fetch it again")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:  # a header's length
        return _read_safetensors(path)
    for sign, what in _OTHERS:
        if start.lstrip().startswith(sign):
            raise ZooError(f"{path}: {what}")
    if path.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80")):
        raise ZooError(f"{path}: not a whole safetensors file (no header); fetch it again")
    return _read_pickle(path)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, KeyError) as error:  # KeyError: a kind of number too new
        raise ZooError(
            f"{path}: not a whole safetensors file ({_first_line(error)}); fetch it again"
        ) from None


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":  # torch would go by the name
            with path.open("rb") as file:
                content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        # torch's own advice, to load it with weights_only=False, is not passed on
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ZooError(
                f"{path}: a pickle that runs code when it is read ({code[1][:80]}), which is not "
                "done; expected tensors only: save them alone, best as .safetensors"
            ) from None
        raise ZooError(
            f"{path}: not a whole weights file that torch can read without running code in it "
            f"({_first_line(error)}); fetch it again, or convert it to .safetensors"
        ) from None
    if not isinstance(content, Mapping):
        raise ZooError(f"{path}: holds a {type(content).__name__}, not named tensors")
    return content


def _first_line(error: BaseException) -> str:
    if not str(error).strip() or str(error).startswith("Weights only load failed"):
        return type(error).__name__
    return str(error).strip().splitlines()[0][:160]
