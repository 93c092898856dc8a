"""Slots for quantities: as few as are needed at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def allot(made: Iterable[Sequence[K]], until: Mapping[K, int]) -> tuple[dict[K, int], int]:
    """Give what each row makes the lowest slot that is free, from there to the last row that reads it (`until`).

    Also return how many slots there are. What no row reads still has one in its own row.

    >>> allot([["a"], ["b"], ["c"]], {"a": 1, "b": 2})
    ({'a': 0, 'b': 1, 'c': 0}, 2)
    """
    given: dict[K, int] = {}
    busy: list[int] = []
    for index, row in enumerate(made):
        for quantity in row:
            slot = next((k for k, last in enumerate(busy) if last < index), len(busy))
            busy[slot : slot + 1] = [until.get(quantity, index)]
            given[quantity] = slot
    return given, len(busy)
