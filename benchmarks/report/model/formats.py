"""Numbers as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol


class HasInterval(Protocol):
    """Anything with the ends of an interval."""

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...


def decimals(values: Iterable[float | None]) -> int:
    """Decimal places that give typical values of a column three digits."""
    sizes = sorted(abs(value) for value in values if value)
    if not sizes:
        return 2
    return min(max(2 - math.floor(math.log10(sizes[len(sizes) // 2])), 0), 5)


def number(value: float | None, places: int) -> str:
    """A number with a true minus sign; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.{places}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.removeprefix("-")


def signed(value: float | None, places: int) -> str:
    text = number(value, places)
    return f"+{text}" if value and value > 0 else text


def interval(entry: HasInterval, places: int) -> str:
    return f"[{number(entry.low, places)}, {number(entry.high, places)}]"


def level(p: float) -> str:
    """
    >>> level(0.0004), level(0.0123), level(0.0499), level(0.42), level(1.0)
    ('< 0.001', '0.012', '0.0499', '0.42', '1')
    """
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3g}" if 0.045 < p < 0.055 else f"{p:.2g}"


def level_text(p: float) -> str:
    """
    >>> level_text(0.0004), level_text(0.42)
    ('p < 0.001', 'p = 0.42')
    """
    return f"p {level(p)}" if p < 0.001 else f"p = {level(p)}"


def percent(share: float | None) -> str:
    """
    >>> percent(0.0123), percent(-0.0004), percent(None)
    ('+1.2%', '0.0%', '–')
    """
    return "–" if share is None else f"{signed(round(100 * share, 1), 1)}%"


def in_steps(*counts: int) -> str:
    """
    >>> in_steps(1), in_steps(2, 4, 8)
    ('1 step', '2, 4 and 8 steps')
    """
    return f"{listed([str(n) for n in counts])} step{'s' if counts != (1,) else ''}"


def listed(parts: Sequence[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *rest, last = parts
    return f"{', '.join(rest)} and {last}" if rest else last


def quantity(value: float | None) -> str:
    """A large number for people: 5.4k, 2.1T.

    >>> quantity(5432), quantity(2.13e12), quantity(7)
    ('5.43k', '2.13T', '7')
    """
    if value is None:
        return "–"
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def whole(value: float | None) -> str:
    """A number of updates for people, every digit of it.

    >>> whole(1011), whole(None)
    ('1,011', '–')
    """
    return "–" if value is None else f"{value:,.0f}"


def flops(value: float | None) -> str:
    """Floating-point operations with the unit's prefix.

    >>> flops(6.61e12)
    '6.61 TFLOPs'
    """
    text = quantity(value)
    return f"{text[:-1]} {text[-1]}FLOPs" if text[-1:].isalpha() else f"{text} FLOPs"


def duration(seconds: float | None) -> str:
    """
    >>> duration(42), duration(282), duration(7400)
    ('42 s', '4 min 42 s', '2 h 3 min')
    """
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
