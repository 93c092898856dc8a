"""Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers" (2011)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_LOW, _HIGH = np.uint64(_WORD), np.uint64(32)


def philox4x32(counter: Sequence[Any], key: tuple[int, int]) -> list[NDArray[np.uint64]]:
    """Return four 32-bit words, held in uint64, for each counter.

    The counter is four words, each a number or an array; they broadcast against each other.

    >>> [hex(int(word)) for word in philox4x32((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = (np.asarray(word, np.uint64) for word in counter)
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b = (second >> _HIGH) ^ b ^ np.uint64(k0), second & _LOW
        c, d = (first >> _HIGH) ^ d ^ np.uint64(k1), first & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return [np.asarray(word) for word in (a, b, c, d)]
