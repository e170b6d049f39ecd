"""What a method says of its networks: each role is checked by itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, get_args

from salt_zoo.core.base.errors import did_you_mean, shown
from salt_zoo.core.base.strict_numbers import LARGEST_RATE
from salt_zoo.core.protocols import NetworkSpec, Start
from salt_zoo.plugin.isolation.foreign import ForeignError

#: Names of roles are names of files in a checkpoint.
ROLE = re.compile(r"[A-Za-z0-9][\w-]{0,99}", re.ASCII)
#: The checkpoint's own file beside those of the roles.
OPTIMIZERS = "optimizers"
#: The role that the trainer adds: the student's EMA, which is evaluated and saved.
STUDENT_EMA = "student_ema"
OWN = (STUDENT_EMA, OPTIMIZERS)

Fail = Callable[[str], ForeignError]


def check_role(name: Any, role: Any, error: Fail) -> None:
    """Refuse a role that is none.

    Args:
        error: makes the error of a text; it names the method.
    """
    if not isinstance(name, str) or not ROLE.fullmatch(name) or name in OWN:
        raise error(
            f"{shown(name)} cannot be a role's name: write letters, digits and _, and not "
            f"{' or '.join(map(repr, OWN))}, which are the trainer's own"
        )
    if not isinstance(role, NetworkSpec):
        raise error(f"role {name!r} is {shown(role)}, not a NetworkSpec")
    if role.start is not None and role.start not in get_args(Start):
        hint = did_you_mean(str(role.start), get_args(Start))
        raise error(f"role {name!r} starts as {shown(role.start)}; {hint}")
    _check_origin(name, role, error)
    rate = role.learning_rate
    if rate is not None and not (_is_number(rate) and 0 < rate <= LARGEST_RATE):
        raise error(
            f"role {name!r} has the learning rate {shown(rate)}; it must be a number above 0 "
            f"and at most {LARGEST_RATE:g}, or None for a frozen network"
        )
    if not (_is_number(role.decay) and 0 <= role.decay <= 1):
        raise error(f"role {name!r} has the decay {shown(role.decay)}, not one in [0, 1]")


def _check_origin(name: str, role: NetworkSpec, error: Fail) -> None:
    if role.ema_of is not None and role.copy_of is not None:
        raise error(
            f"role {name!r} is an average of {role.ema_of!r} and a copy of {role.copy_of!r}; "
            "leave out one of the two"
        )
    if role.copy_of is not None and role.start is not None:
        raise error(
            f"role {name!r} has the start {role.start!r} and is a copy of {role.copy_of!r}, as "
            "which it begins; leave out the start"
        )
    if role.copy_of is not None and role.learning_rate is not None:
        raise error(
            f"role {name!r} is a copy of {role.copy_of!r} and has a learning rate; a copy is "
            "frozen between the moments at which update_order names it"
        )
    if role.follows is None and (role.start is None) == (role.factory is None):
        both = "neither a start nor" if role.start is None else "both a start and"
        raise error(f"role {name!r} has {both} a factory; give it one of the two")
    if role.factory is None:
        return
    if role.follows is not None:
        does = "averages" if role.ema_of is not None else "copies"
        raise error(
            f"role {name!r} has a factory, and {does} {role.follows!r}, of which it is a "
            "copy; leave out the factory"
        )
    if name == "student":
        raise error(
            "role 'student' has a factory; the student is a velocity network of the backbone "
            f"and has a start ({', '.join(get_args(Start))})"
        )
    if not callable(role.factory):
        raise error(
            f"role {name!r} has the factory {shown(role.factory)}; it must be a function of "
            "the backbone that returns a torch module"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
