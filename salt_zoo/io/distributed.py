"""The processes of a distributed run, where one of them does something for all."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as distributed

from salt_zoo.core.base.errors import ZooError
from salt_zoo.core.base.interrupts import Stopped, is_users
from salt_zoo.core.base.ranks import is_main_process

T = TypeVar("T")

#: While one process measures, the others wait, for hours if need be. One that dies does not make
#: them wait: torchrun ends them all.
PATIENCE = timedelta(days=365)

#: A group for waiting: that of the gradients gives up after minutes.
_waiting: list[Any] = []


def on_main(do: Callable[[], T]) -> T:
    """Call `do` in the first process; all wait for it and return its value, or raise its error.

    The value must be one that can be pickled. Every process must come here, in the same order.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return do()
    if not _waiting:
        _waiting.append(distributed.new_group(backend="gloo", timeout=PATIENCE))
    told: list[Any] = [None]
    raised: BaseException | None = None
    if is_main_process():
        try:
            told = [("value", do())]
        except BaseException as error:
            raised, told = error, [_told(error)]
    distributed.broadcast_object_list(told, src=0, group=_waiting[0])
    if raised is not None:
        raise raised
    kind, value = told[0]
    if kind == "value":
        result: T = value
        return result
    raise kind(value)


def _told(error: BaseException) -> tuple[type[BaseException], Any]:
    """An error as the other processes raise it."""
    if isinstance(error, ZooError):
        return type(error), str(error)
    if is_users(error):
        return Stopped, error.number if isinstance(error, Stopped) else signal.SIGINT
    return RuntimeError, f"the first process failed: {type(error).__name__}: {error}"


def may_speak() -> bool:
    """Whether this process is the one to print the error that ends the run: the first that asks.

    The others fail because of it, or in the same way.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    key = f"salt_zoo/speaks/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        socket.create_connection(place, timeout=10).close()  # where nobody listens torch is loud
        store = distributed.TCPStore(
            *place,
            is_master=False,
            timeout=timedelta(seconds=10),
        )
        return bool(store.add(key, 1) == 1)
    except Exception:  # where there is nobody to ask, better twice than never
        return True


def has_lost_another(error: BaseException) -> bool:
    """Whether a collective has failed because a process at its other end is no more."""
    text = str(error)
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError)
        and ("onnection closed by peer" in text or "onnection reset by peer" in text)
    )
