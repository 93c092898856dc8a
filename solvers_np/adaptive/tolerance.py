"""The error of a step relative to what is tolerated: 1 where the tolerance is just met."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """atol and rtol, and how the errors of a batch's samples become one number ("max" or "rms").

    >>> x = np.ones((2, 3))
    >>> Tolerance(0.1, 0.0, "max").of(0.05 * x, x, x)
    0.5
    """

    atol: float
    rtol: float
    norm: str

    def of(self, difference: Array, lower: Array, previous: Array) -> float:
        """Return the error of a step: the two solutions' difference over max(atol, rtol max(|lower|, |previous|))."""
        size = np.maximum(np.abs(lower), np.abs(previous))
        return self._norm(difference / np.maximum(size * self.rtol, self.atol))

    def rounding(self, x: Array) -> float:
        """Return the error that rounding the state `x` once makes."""
        size = np.abs(x)
        return self._norm(size * float(np.finfo(x.dtype).eps) / np.maximum(size * self.rtol, self.atol))

    def _norm(self, values: Array) -> float:
        # squares in float64, so that an error that is large in float32 is still a number
        squares = np.square(values.reshape(len(values), -1), dtype=np.float64).mean(axis=1)
        return math.sqrt(float(squares.max() if self.norm == "max" else squares.mean()))
