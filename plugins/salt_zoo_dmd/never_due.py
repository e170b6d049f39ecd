"""Terms of the student's loss that a training would never use; said in one line when it begins."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from salt_zoo.io.printing import say

#: Of a term's options, the student updates of the training and the lengths of its step lists: why
#: the term is never used, or None.
Why = Callable[[Mapping[str, Any], int, set[int]], str | None]


def reason(config: Mapping[str, Any], term: str, why: Why) -> str | None:
    """Why a resolved run (as plain values) never uses `term`; None if it does, or has no such term.

    A term of weight 0 is switched off on purpose and has no reason; of a method that has no step
    lists, or does not fill in its objectives' options, nothing is known.
    """
    method = config["method"]
    objectives, lists = method.get("objectives"), method.get("steps")
    if not isinstance(objectives, Mapping) or not isinstance(lists, Mapping):
        return None
    options = objectives.get(term)
    if not isinstance(options, Mapping) or not options.get("weight"):
        return None
    drawn = {int(steps) for steps, probability in lists.items() if probability > 0}
    return why(options, int(config["training"]["updates"]), drawn)


def warn(config: Mapping[str, Any], term: str, why: Why) -> None:
    """Say so on stderr, once in a process: the arms and seeds of a study often share it."""
    found = reason(config, term, why)
    if found:
        _say(f"warning: {term} is never used in this training: {found}")


@functools.cache
def _say(line: str) -> None:
    say(line)


def self_consistency(options: Mapping[str, Any], updates: int, drawn: set[int]) -> str | None:
    """It is used on the list of its own `steps` only."""
    if options["steps"] in drawn:
        return None
    return (
        f"method.objectives.self-consistency.steps is {options['steps']} and method.steps has no "
        f"such list, only {listed(drawn)}; give both the same number"
    )


def listed(drawn: set[int]) -> str:
    return ", ".join(map(str, sorted(drawn)))
