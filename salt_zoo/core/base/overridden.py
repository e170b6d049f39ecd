"""Members that belong together, of which a subclass has replaced one alone."""

from __future__ import annotations


def is_overridden(kind: type, member: str, beside: str) -> bool:
    """Whether a subclass defines `member` anew and inherits `beside`, which tells the same in
    another way and is then no longer true.

    >>> class A:
    ...     def sum(self): return 3
    ...     def parts(self): return [1, 2]
    >>> class B(A):
    ...     def sum(self): return 4
    >>> is_overridden(A, "sum", "parts"), is_overridden(B, "sum", "parts")
    (False, True)
    """
    order = kind.__mro__
    first, other = (
        next(place for place, one in enumerate(order) if name in vars(one))
        for name in (member, beside)
    )
    return first < other
