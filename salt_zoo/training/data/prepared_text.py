"""Encoded prompts of a folder that `salt-zoo prepare text` has written."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.transfers import send
from salt_zoo.core.protocols import Backbone, Condition, Encoder
from salt_zoo.io.differences import difference
from salt_zoo.io.packed_reader import PackedReader

#: Rows that stay on the device, the unconditional one among them.
ON_DEVICE = 8


class PreparedText:
    """The encodings of a folder, read when asked for (`salt_zoo.core.networks.condition.encode`).

    Raises:
        ZooError: the folder is not there, not finished, or holds no text.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.reader = PackedReader(folder, "text")
        except ZooError as error:
            raise ZooError(f"execution.prepared_text: {error}") from None
        self._places = {prompt: place for place, prompt in enumerate(self.reader.prompts)}
        self._rows: OrderedDict[tuple[str, torch.device], Condition] = OrderedDict()

    def bind(self, backbone: Backbone) -> None:
        """Let a backbone take its encodings from here.

        Raises:
            ZooError: another text encoder made them.
        """
        check_encoder(self.reader, backbone, "text")
        backbone.encodings = self

    def __contains__(self, prompt: object) -> bool:
        return prompt in self._places

    def find(self, prompt: str, device: torch.device | str) -> Condition | None:
        """The row of a prompt in float32, or None."""
        place = self._places.get(prompt)
        if place is None:
            return None
        key = prompt, torch.device(device)
        if key in self._rows:
            self._rows.move_to_end(key)
            return self._rows[key]
        with torch.inference_mode(False):  # training may follow
            row = {name: send(value, key[1]) for name, value in self.reader.read(place).items()}
        self._rows[key] = row
        if len(self._rows) > ON_DEVICE:
            self._rows.popitem(last=False)
        return row


class Prepared(Protocol):
    """A folder that `salt-zoo prepare KIND` has written."""

    @property
    def path(self) -> Path: ...

    @property
    def header(self) -> Mapping[str, Any]: ...

    @property
    def kind(self) -> str: ...


def check_encoder(reader: Prepared, backbone: Backbone, of: Encoder) -> None:
    """Refuse what another encoder has made.

    Raises:
        ZooError: it names the first part that differs.
    """
    key = "image encoder" if of == "image" else "encoder"
    if found := difference(reader.header[key], dict(backbone.encoder(of))):
        raise ZooError(
            f"{reader.path}: another {of} encoder than this backbone's made it ({found}); make it "
            f"again in another folder with 'salt-zoo prepare {reader.kind}'"
        )
