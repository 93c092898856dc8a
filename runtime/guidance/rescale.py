"""Guidance rescale, Lin et al. 2023, section 3.4: a sample's deviation goes back towards the conditioned output's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def rescale_guided(
    guided: NDArray[Any], given: NDArray[Any], factor: float, flat: NDArray[Any], scratch: NDArray[Any]
) -> None:
    """Multiply each sample of `guided`, in place, by factor * std(given) / std(guided) + 1 - factor.

    `flat` is room for one sample, and `scratch` the same memory in its shape. A sample without deviation stays.
    """
    for sample, like in zip(guided, given):
        spread = _spread(sample, flat, scratch)
        if spread > 0:
            gain = factor * math.sqrt(_spread(like, flat, scratch) / spread) + 1.0 - factor
            np.multiply(sample, sample.dtype.type(gain), out=sample)


def _spread(sample: NDArray[Any], flat: NDArray[Any], scratch: NDArray[Any]) -> float:
    """Return the sum of squared distances from the mean; counts cancel in a ratio of two."""
    np.copyto(scratch, sample, casting="same_kind")
    np.subtract(flat, flat.mean(), out=flat)
    return float(np.dot(flat, flat))
