"""A cache of encoded prompts: all on disk, recent ones in memory, a few on the device."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.transfers import send
from salt_zoo.io.files.storage import atomic_file, digest

#: Rows of an encoded prompt; what is shorter is padded with zeros, as WanPipeline does.
MAX_TOKENS = 512
#: Bytes that encodings may take in main memory once they are on disk.
IN_MEMORY = 2**30
#: Padded encodings that are kept on the device, the unconditional one among them.
ON_DEVICE = 8


class PromptCache:
    """Encoded prompts, without their padding.

    Args:
        folder: where they are kept, one file a prompt; None keeps all of them in main memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0
        self._padded: OrderedDict[tuple[str, torch.device], Tensor] = OrderedDict()

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Those of which there is no encoding, each once; files are not opened."""
        return [p for p in dict.fromkeys(prompts) if p not in self._known and not self._filed(p)]

    def unread(self, prompts: Sequence[str]) -> list[str]:
        """Those that have to be encoded, each once; what is on disk is read into memory."""
        return [p for p in dict.fromkeys(prompts) if p not in self._known and not self._read(p)]

    def add(self, prompt: str, states: Tensor) -> None:
        """Keep `states` `[tokens, width]` of the CPU.

        Raises:
            ZooError: the folder cannot be written.
        """
        path = self._path(prompt)
        if path is not None:
            with atomic_file(path) as draft:
                tensors = {"text": states.contiguous()}
                safetensors.torch.save_file(tensors, draft, {"sha256": _sha256(states)})
        self._remember(prompt, states)

    def rows(self, prompts: Sequence[str], device: torch.device | str) -> Tensor:
        """`[B, 512, width]` float32 on `device`; all of them must be known."""
        place = torch.device(device)
        found = {prompt: self._row(prompt, place) for prompt in dict.fromkeys(prompts)}
        return torch.stack([found[prompt] for prompt in prompts])

    def _row(self, prompt: str, device: torch.device) -> Tensor:
        """`[512, width]`: the padding is made on the device, where it costs nothing."""
        key = prompt, device
        if key in self._padded:
            self._padded.move_to_end(key)
            return self._padded[key]
        if prompt not in self._known and not self._read(prompt):
            raise ZooError(
                f"the encoding of the prompt {prompt[:80]!r} has vanished from its folder"
            )
        self._known.move_to_end(prompt)
        states = self._known[prompt]
        with torch.inference_mode(False):  # training may follow
            row = torch.zeros(MAX_TOKENS, states.shape[1], device=device)
            row[: len(states)] = send(states, device)
        self._padded[key] = row
        if len(self._padded) > ON_DEVICE:
            self._padded.popitem(last=False)
        return row

    def _path(self, prompt: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{digest(prompt)}.safetensors"

    def _filed(self, prompt: str) -> bool:
        path = self._path(prompt)
        return path is not None and path.is_file()

    def _read(self, prompt: str) -> bool:
        path = self._path(prompt)
        if path is None or not path.is_file():
            return False
        try:
            with safetensors.safe_open(path, "pt") as file:
                states = file.get_tensor("text")
                whole = file.metadata()["sha256"] == _sha256(states)
        except Exception:  # a damaged file is made again
            return False
        if not whole:
            return False
        self._remember(prompt, states)
        return True

    def _remember(self, prompt: str, states: Tensor) -> None:
        self._known[prompt] = states
        self._bytes += states.nbytes
        while self.folder is not None and self._bytes > IN_MEMORY and len(self._known) > 1:
            self._bytes -= self._known.popitem(last=False)[1].nbytes


def _sha256(states: Tensor) -> str:
    data = states.contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(data.tobytes()).hexdigest()


def default_folder() -> Path | None:
    """`salt-zoo/text` in the user's cache folder; None where there is none that can be written."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "salt-zoo" / "text"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
