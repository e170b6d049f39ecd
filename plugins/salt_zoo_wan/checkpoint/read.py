"""Reading files of tensors without executing code in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import safetensors.torch
from safetensors import SafetensorError

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.files.pickles import load_pickle

#: First bytes of files that are often mistaken for weights.
_OTHERS = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file; fetch it with 'git lfs pull'"),
    (b"GGUF", "a quantised GGUF file; give the weights that it was made from (.safetensors, .pt)"),
    (b"{", "a text file (JSON); give the weights themselves: .safetensors, .pt or .pth"),
    (b"<", "a web page; fetch the file itself"),
    (b"\x93NUMPY", "a NumPy array; give named tensors: .safetensors, .pt or .pth"),
    (b"\x89HDF", "an HDF5 file; convert it to .safetensors"),
    (b"\x1f\x8b", "an archive (gzip); unpack it first"),
    (b"7z\xbc\xaf", "an archive (7z); unpack it first"),
    (b"Rar!", "an archive (RAR); unpack it first"),
    (b"BZh", "an archive (bzip2); unpack it first"),
    (b"\xfd7zXZ", "an archive (xz); unpack it first"),
    (b"(\xb5/\xfd", "an archive (zstd); unpack it first"),
)
DISTRIBUTED = (
    "a distributed checkpoint (torch.distributed.checkpoint); make one file of it with 'python -m "
    "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pt', if you trust it"
)


def read_tensors(path: Path) -> Mapping[str, Any]:
    """The content of a `.safetensors` file or of a pickle without code (`weights_only`).

    What a file is, its first bytes say, not its name.

    Raises:
        ZooError: it is missing, damaged, needs code to be run, or holds no named tensors.
    """
    if path.is_dir():
        raise ZooError(f"{path}: is a folder; give one file of weights")
    if not path.is_file():
        raise ZooError(f"{path}: there is no such file")
    if path.suffix == ".distcp":
        raise ZooError(f"{path}: a part of {DISTRIBUTED}")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise ZooError(f"{path}: cannot be loaded, it is empty; download it again")
    if _is_safetensors(start):
        return _read_safetensors(path)
    for sign, what in _OTHERS:
        if start.lstrip().startswith(sign):
            raise ZooError(f"{path}: {what}")
    if start[257:262] == b"ustar":
        raise ZooError(f"{path}: an archive (tar); unpack it first")
    if path.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80")):
        raise ZooError(
            f"{path}: an incomplete or corrupt safetensors file (no header); download it again"
        )
    if start.startswith(b"PK") and is_zipfile(path):
        _refuse_other_archives(path)
    return _read_pickle(path)


def is_mapped(path: Path) -> bool:
    """Whether `read_tensors` maps a file, so that of its tensors is read what is used; a pickle of
    old versions of torch is read whole."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return True  # said where it is read
    return _is_safetensors(start) or (path.suffix != ".safetensors" and is_zipfile(path))


def _is_safetensors(start: bytes) -> bool:
    """By the length of a header and its first character."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40


def _refuse_other_archives(path: Path) -> None:
    """torch's files are zip archives with a `data.pkl`; so are other things."""
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, BadZipFile, ValueError):
        return  # said where it is read
    if any(name.endswith("/constants.pkl") for name in names):
        raise ZooError(
            f"{path}: a TorchScript program, which is code; save the network's state_dict instead"
        )
    if not any(name.endswith("data.pkl") for name in names):
        what = (
            "NumPy arrays" if any(name.endswith(".npy") for name in names) else "an archive (zip)"
        )
        raise ZooError(f"{path}: {what}, not weights of torch; give .safetensors, .pt or .pth")


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, KeyError) as error:  # KeyError: a kind of number too new
        raise ZooError(
            f"{path}: an incomplete or corrupt safetensors file ({_first_line(error)}); "
            "download it again"
        ) from None


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":  # torch would go by the name
            with path.open("rb") as file:
                content = load_pickle(file)
        else:
            content = load_pickle(path, mmap=is_zipfile(path))
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        # torch's own advice, to load it with weights_only=False, is not passed on
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise ZooError(
                f"{path}: a pickle that would run code ({code[1][:80]}), which is refused; "
                "expected tensors only: save them alone, preferably as .safetensors"
            ) from None
        raise ZooError(
            f"{path}: an incomplete or corrupt weights file, or one that torch cannot read without "
            f"running code ({_first_line(error)}); download it again, or convert it to .safetensors"
        ) from None
    if not isinstance(content, Mapping):
        raise ZooError(f"{path}: holds a {type(content).__name__}, not named tensors")
    return content


def _first_line(error: BaseException) -> str:
    if not str(error).strip() or str(error).startswith("Weights only load failed"):
        return type(error).__name__
    return str(error).strip().splitlines()[0][:160]
