"""How close a graph comes to torch, and the error where that is not close enough."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ExportError

Array = NDArray[Any]


def relative_error(got: Array, expected: Array) -> float:
    """Return the norm of a difference over that of what was expected; infinite for another shape."""
    if got.shape != expected.shape:
        return float("inf")
    difference = float(np.linalg.norm((got - expected).astype(np.float64)))
    return difference / float(np.linalg.norm(expected.astype(np.float64))) if difference else 0.0


def largest_error(got: Array, expected: Array) -> float:
    """Return the largest difference over the RMS of what was expected; infinite for another shape."""
    if got.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(got - expected).max())
    return largest / float(np.sqrt(np.mean(np.square(expected, dtype=np.float64)))) if largest else 0.0


def close_to_torch(
    error: float, tolerance: float, what: str, *, where: str, shape: str = "", report: str = "network's config.json"
) -> float:
    """Return an error within the tolerance; refuse a larger one, and one that is no number.

    `what` says what is not torch's, `where` at which inputs, `shape` which shape was expected, if that matters, and
    `report` what somebody needs who looks for the cause.
    """
    if error <= tolerance:
        return error
    raise ExportError(
        what,
        got=f"a relative error of {error:.2e} {where}",
        expected=f"at most {tolerance:.0e}{shape}",
        fix=f"report the {report} and the versions of torch and onnxscript",
    )
