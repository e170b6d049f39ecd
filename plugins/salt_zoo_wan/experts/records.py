"""What a folder says of the experts in it: which one it is, and where their times meet.

Our own folders say it in the `config.json` of each transformer, under names that diffusers passes
over; a pipeline's `model_index.json` has `boundary_ratio`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from salt_zoo.core.base.errors import ZooError, shown
from salt_zoo_wan.checkpoint.files import EXPERT_FOLDERS, EXPERTS

#: The sides of the parts of a pipeline.
_SIDES = dict(zip(EXPERTS, EXPERT_FOLDERS, strict=True))
_EXPERT, _BOUNDARY = "_expert", "_boundary_ratio"


def expert_record(part: str | None, boundary: float | None = None) -> dict[str, Any]:
    """What the `config.json` of the expert `part` says beside its arguments; of two saved together
    their `boundary`, too. Of no expert (None) nothing."""
    if part is None:
        return {}
    record: dict[str, Any] = {_EXPERT: _SIDES[part]}
    return record if boundary is None else {**record, _BOUNDARY: boundary}


def check_expert(config: Path | None, part: str | None) -> None:
    """Refuse weights whose `config.json` says that they are the other expert's.

    Raises:
        ZooError: they are.
    """
    if config is None or part is None:
        return
    found, wanted = _read(config).get(_EXPERT), _SIDES[part]
    if found in _SIDES.values() and found != wanted:
        raise ZooError(
            f"{config.parent}: is the expert for {found} noise ({_EXPERT} in its config.json), and "
            f"backbone.options.expert is {wanted}; set it to {found}, or give weights of the other"
        )


def read_boundary(high: Path) -> float | None:
    """The time from which on the expert in the folder `high` is passed, as the pipeline around it
    says it, else our record; None where neither does.

    Raises:
        ZooError: it is no number in (0, 1).
    """
    for path, key in ((high.parent / "model_index.json", "boundary_ratio"),
                      (high / "config.json", _BOUNDARY)):  # fmt: skip
        value = _read(path).get(key)
        if value is None:
            continue
        if not isinstance(value, int | float) or not 0 < value < 1:
            raise ZooError(
                f"{path}: {key} is {shown(value)}; expected a number between 0 and 1, such as 0.875"
            )
        return float(value)
    return None


def _read(path: Path) -> dict[str, Any]:
    """Empty where it is missing or damaged, which is told where the weights are loaded."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
