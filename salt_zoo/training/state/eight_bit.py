"""AdamW with moments of 8 bits (arXiv 2110.02861), by torchao: 2 bytes a weight in place of 8.

torchao quantises blocks of `BLOCK` neighbours of the part of a weight that a process has; a small
part, or one that blocks do not divide, stays in float32. A checkpoint therefore holds pieces: some
rows of a moment, either as numbers or as codes and scales, in plain tensors.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from salt_zoo.config.training import OptimizerConfig
from salt_zoo.core.base.errors import ZooError
from salt_zoo.training.state.sharding import local, own_rows

#: Neighbours that have a scale together, and numbers below which a part stays in float32.
BLOCK, LEAST = 256, 4096
#: The quantised states, and whether they have a sign.
MOMENTS: Mapping[str, bool] = {"exp_avg": True, "exp_avg_sq": False}
#: Bytes of a moment's table of values, float32.
_TABLE = 4 * 256


def require_torchao(where: str = "training.optimizers") -> None:
    """A ZooError at the key `where`, if torchao is not installed."""
    if importlib.util.find_spec("torchao") is None:
        raise ZooError(
            f"{where}: adamw8bit needs torchao, which is not installed; run: pip install "
            "'salt-zoo[scale]'"
        )


def make_adamw8bit(
    parameters: Iterable[nn.Parameter], rate: float, config: OptimizerConfig
) -> torch.optim.Optimizer:
    """torchao's optimizer. It compiles its update for every shape of a weight, once a process."""
    require_torchao()
    from torchao.optim import AdamW8bit

    made: torch.optim.Optimizer = AdamW8bit(
        parameters, lr=rate, betas=config.betas, weight_decay=config.weight_decay
    )
    return made


def moment_bytes(numbers: int) -> int:
    """Bytes of both moments of a process's part of a weight."""
    if numbers < LEAST or numbers % BLOCK:
        return 2 * 4 * numbers
    return 2 * (numbers + 4 * numbers // BLOCK + _TABLE)


def is_eight_bit(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `make_adamw8bit` has made it."""
    return type(optimizer).__module__.startswith("torchao.")


@dataclass(frozen=True)
class Piece:
    """Some rows of a moment.

    Attributes:
        rows: of the whole weight.
        tensors: `float`, or `codes` (uint8) and `scale` (float32, one a block), all flat.
    """

    rows: range
    tensors: Mapping[str, Tensor]


def piece_of(weight: Any, moment: Tensor) -> Piece:
    """A process's part of a moment."""
    rows, _ = own_rows(weight)
    (part,) = local([moment])
    return Piece(range(rows.start, rows.stop), _flat(part))


def _flat(part: Any) -> dict[str, Tensor]:
    from torchao.optim.subclass_8bit import OptimState8bit

    if isinstance(part, OptimState8bit):
        return {"codes": part.codes.flatten(), "scale": part.scale}
    return {"float": part.flatten()}


@torch.no_grad()
def set_moments(optimizer: Any, weight: Any, pieces: Mapping[str, list[Piece]]) -> None:
    """Give a weight the moments that are in `pieces` (by their names), as torchao holds them here.

    Bit for bit where the blocks are the same ones; else numbers are quantised anew.
    """
    rows, _ = own_rows(weight)
    for name, signed in MOMENTS.items():
        moment = optimizer._new_buffer(weight, signed)  # in DTensor, float32 or 8 bits
        (part,) = local([moment])
        if part.numel():
            _fill(part, rows.start, math.prod(weight.shape[1:]), pieces[name], signed)
        optimizer.state[weight][name] = moment


def _fill(part: Any, first: int, width: int, pieces: list[Piece], signed: bool) -> None:
    """Fill the rows from `first` on, of `width` numbers each, which have memory in `part`."""
    own = _flat(part)
    begin, end = first * width, first * width + part.numel()
    numbers = None if "codes" in own else own["float"]
    parts = []
    for piece in pieces:
        start = piece.rows.start * width
        low, high = max(begin, start), min(end, piece.rows.stop * width)
        if low < high:
            parts.append((piece, start, low, high))
    if numbers is None and not all(
        "codes" in piece.tensors and not ((low - start) % BLOCK or (low - begin) % BLOCK)
        and not (high - low) % BLOCK
        for piece, start, low, high in parts
    ):  # fmt: skip
        numbers = torch.empty(part.numel(), device=part.device)
    for piece, start, low, high in parts:
        if numbers is not None:
            floats = _numbers(piece.tensors, signed)
            numbers[low - begin : high - begin] = floats[low - start : high - start]
        else:
            own["codes"][low - begin : high - begin] = piece.tensors["codes"][
                low - start : high - start
            ]
            own["scale"][(low - begin) // BLOCK : (high - begin) // BLOCK] = piece.tensors["scale"][
                (low - start) // BLOCK : (high - start) // BLOCK
            ]
    if numbers is not None:
        part.copy_(numbers.view(part.shape))


def _numbers(tensors: Mapping[str, Tensor], signed: bool) -> Tensor:
    from torchao.optim.subclass_8bit import OptimState8bit

    if "float" in tensors:
        return tensors["float"]
    codes, scale = tensors["codes"], tensors["scale"]
    table = OptimState8bit.zeros((BLOCK,), signed, BLOCK, codes.device).qmap
    found: Tensor = OptimState8bit(codes, scale, table, signed).dequantize()
    return found


def plain_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state dict of a whole optimizer with each moment as `_flat` has it: plain tensors."""
    content = optimizer.state_dict()
    state = {
        number: {k: _flat(value) if k in MOMENTS else value for k, value in kept.items()}
        for number, kept in content["state"].items()
    }
    return {**content, "state": state}


def load_plain_state(optimizer: torch.optim.Optimizer, content: Mapping[str, Any]) -> None:
    """Load what `plain_state` has made, into an optimizer that may be sharded."""
    without = {
        number: {k: value for k, value in kept.items() if k not in MOMENTS}
        for number, kept in content["state"].items()
    }
    optimizer.load_state_dict({**content, "state": without})
    numbers = [n for group in content["param_groups"] for n in group["params"]]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, weight in zip(numbers, weights, strict=True):
        if number in content["state"]:
            kept = content["state"][number]
            every = range(weight.shape[0] if weight.ndim else 1)
            device = local([weight])[0].device
            pieces = {
                name: [Piece(every, {k: t.to(device) for k, t in kept[name].items()})]
                for name in MOMENTS
            }
            set_moments(optimizer, weight, pieces)
