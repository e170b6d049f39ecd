"""Durations in words for people."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """A duration, as in `40 s`, `2 min 10 s`, `5 h 20 min` or `1,640 hours`."""
    if round(seconds) < 60:
        return f"{round(seconds)} s" if seconds >= 1 or seconds == 0 else "1 s"
    if round(seconds) < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    if seconds < 48 * 3600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    hours = round(seconds / 3600)
    return f"{_rounded(hours):,} hours"


def _rounded(hours: int) -> int:
    """To three digits: a plan knows no more."""
    digits: int = 10 ** max(0, len(str(hours)) - 3)
    return round(hours / digits) * digits
