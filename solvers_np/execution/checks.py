"""What an executor demands of the state, on whatever it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dpmrt.errors import ArrayError, NonFiniteError


def check_binding(shape: Sequence[int], dtype: DTypeLike) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the dtype of a state that an executor can be bound to.

    >>> check_binding([2, 3], "float32")
    ((2, 3), dtype('float32'))
    """
    size, kind = tuple(int(n) for n in shape), np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ArrayError("the state must be float32 or float64", got=kind)
    if len(size) < 2 or min(size) < 1:
        raise ArrayError("the shape needs a batch axis and at least one more", got=size)
    return size, kind


def check_start(x: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse an initial state of another shape, or of whole numbers."""
    if x.shape != shape:
        raise ArrayError("the initial state has the wrong shape", got=x.shape, expected=shape)
    if x.dtype.kind != "f":
        raise ArrayError("the initial state has the wrong dtype", got=x.dtype, expected="a floating-point dtype")


def bad_start(x: NDArray[Any]) -> NonFiniteError | None:
    """Return the error for an initial state that is not finite, with the first such number; None if all are.

    >>> bad_start(np.ones((1, 2))) is None
    True
    """
    finite = np.isfinite(x)
    if finite.all():
        return None
    index = np.unravel_index(int(np.flatnonzero(~finite)[0]), x.shape)
    where = tuple(int(i) for i in index)
    return NonFiniteError("the initial state holds NaN or infinity", got=f"{x[index]} at {where}")
