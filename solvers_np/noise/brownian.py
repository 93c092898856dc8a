"""A Brownian path as a noise source: plans with few steps and with many see the same path.

The noise that a step of the reverse diffusion SDE adds to x_t is, times alpha_t/sigma_t^2, an increment of a Brownian
motion W whose clock is the signal-to-noise ratio s = alpha^2/sigma^2. W is drawn from the far ends of log s inwards:
each interval of log s is halved, and W at its middle is drawn given W at its ends, from a generator keyed by the seed
and by the place in the tree. So W at any s can be had at any time, in any order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError
from dpmrt.solvers_np.noise.seeds import check_seed

_Array = NDArray[Any]
_LIMIT = 37.0  # log s of every double below one is above -37
_DEPTH = 20  # the last intervals are 7e-5 wide in log s, far less than any step
_LEAST = 1 / (1 + math.exp(_LIMIT))
# The generator's second key word. Nodes of the tree are numbered below 2**21, root 1, children 2k and 2k + 1.
_FIRST, _LAST, _RISING, _PLAIN = (1 << 32) + np.arange(4, dtype=np.uint64)


class BrownianPath:
    """Noise that is the same path however many steps a plan takes, and in whatever order they are asked.

    The noise over a long interval is the sum of that over its parts, each times the root of its length in s, over the
    root of the whole length. A share of noise below 1e-16 counts as that (s = e^37): an interval that ends without
    noise is infinitely long in s. Noise that rises, as when a sampler churns, is no part of the path: it is drawn
    afresh from the seed and the interval. The same interval gives the same noise whenever it is asked, so a plan that
    crosses one twice meets the same noise twice.

    >>> path, shape = BrownianPath(0), (1, 2)
    >>> whole = path.between(shape, 0.5, 0.1)                    # from s = 1 to s = 9
    >>> parts = path.between(shape, 0.5, 0.2), path.between(shape, 0.2, 0.1)
    >>> np.allclose(8**0.5 * whole, 3**0.5 * parts[0] + 5**0.5 * parts[1], atol=1e-5)
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = check_seed(seed)
        self._plain = self._generator(_PLAIN)
        self._shape: tuple[int, ...] | None = None
        self._leaf = 0
        # W at the ends of each interval around the point asked last, widest first.
        self._ends: list[tuple[_Array, _Array]] = []

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the next draw of a plain stream beside the path, for the initial state; float32."""
        return self._plain.standard_normal(shape, dtype=np.float32)

    def between(self, shape: tuple[int, ...], start: float, end: float) -> NDArray[np.float32]:
        """Return the noise from one share of noise in the variance to another, float32."""
        if not (0 <= start <= 1 and 0 <= end <= 1):
            raise ArrayError("an interval of noise lies between 0 and 1", got=f"{start} to {end}")
        high, low = max(float(start), _LEAST), max(float(end), _LEAST)
        if high <= low:
            bits = np.array([start, end], np.float64).view(np.uint64)
            counter = np.concatenate([np.zeros(2, np.uint64), bits])
            return self._generator(_RISING, counter).standard_normal(shape, dtype=np.float32)
        increment = self._path(shape, low) - self._path(shape, high)
        return np.asarray(increment * math.sqrt(high * low / (high - low)), np.float32)

    def _generator(self, node: int | np.uint64, counter: _Array | None = None) -> np.random.Generator:
        key = np.array([self._seed, node], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def _draw(self, node: int | np.uint64) -> _Array:
        return self._generator(node).standard_normal(self._shape, dtype=np.float32)

    def _path(self, shape: tuple[int, ...], share: float) -> _Array:
        if shape != self._shape:
            self._shape, self._leaf = shape, 0
            first = math.exp(-_LIMIT / 2) * self._draw(_FIRST).astype(np.float64)
            self._ends = [(first, first + math.exp(_LIMIT / 2) * self._draw(_LAST))]
        if share == 1:
            return np.zeros(shape)
        place = min(math.log1p(-share) - math.log(share), _LIMIT)
        self._descend(min(int((place + _LIMIT) / (2 * _LIMIT) * (1 << _DEPTH)), (1 << _DEPTH) - 1))
        return self._inside(_DEPTH, self._leaf, place)

    def _descend(self, leaf: int) -> None:
        shared = _DEPTH - (leaf ^ self._leaf).bit_length()
        del self._ends[shared + 1 :]
        self._leaf = leaf
        for depth in range(len(self._ends) - 1, _DEPTH):
            cell, right = leaf >> (_DEPTH - depth), leaf >> (_DEPTH - depth - 1) & 1
            middle = self._inside(depth, cell, _edge(depth + 1, 2 * cell + 1))
            ends = self._ends[depth]
            self._ends.append((middle, ends[1]) if right else (ends[0], middle))

    def _inside(self, depth: int, cell: int, place: float) -> _Array:
        """Return W inside an interval, given W at its ends; the ends of the path kept are those of the interval."""
        before, after = self._ends[depth]
        left, right = _edge(depth, cell), _edge(depth, cell + 1)
        gone, span = math.expm1(place - left), math.expm1(right - left)
        spread = math.exp(place) * gone * max(math.expm1(right - place), 0.0) / span
        return before + gone / span * (after - before) + math.sqrt(max(spread, 0.0)) * self._draw((1 << depth) + cell)


def _edge(depth: int, cell: int) -> float:
    return -_LIMIT + 2 * _LIMIT * cell / (1 << depth)
