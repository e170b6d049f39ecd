"""Which network a role begins with."""

from __future__ import annotations

from typing import Any

from torch import nn

from salt_zoo.protocols import Backbone, Start


def source(backbone: Backbone, start: Start) -> Backbone:
    """The backbone whose networks those of a `start` are; its random ones are of the same kind.

    An autoregressive backbone has a bidirectional teacher, which may be of another size than its
    student. A backbone that does not say is its own.
    """
    say: Any = getattr(backbone, "source", None)
    found: Backbone = backbone if say is None else say(start)
    return found


def make_network(backbone: Backbone, start: Start) -> nn.Module:
    """A new network as a role that starts as `start` has it."""
    if start in ("teacher", "score"):
        return source(backbone, start).network("teacher")
    return backbone.network("student" if start == "student" else "random")
