"""How far apart two arrays are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import CallParity, Peak, StepDrift
from dpmrt.export.certificate.cases import Case

Array = NDArray[Any]


def rms(values: Array) -> float:
    """Return the root of the mean square.

    >>> rms(np.array([3.0, -4.0, 0.0, 0.0]))
    2.5
    """
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def compare_call(case: Case, expected: Array, got: Array) -> CallParity:
    """Hold one output of the bundle against torch's."""
    scale = rms(expected)
    if not np.isfinite(got).all():
        return CallParity(case.sizes, case.times, case.seed, scale, None, None, None)
    difference = got.astype(np.float64) - expected
    largest = float(np.abs(difference).max())
    return CallParity(
        case.sizes, case.times, case.seed, scale, largest, _part(largest, scale), _part(rms(difference), scale)
    )


def compare_step(t: float, expected: Array, got: Array, peak: Peak) -> StepDrift:
    """Hold one state of the bundle against torch's."""
    difference = got.astype(np.float64) - expected
    scale, error = rms(expected), rms(difference)
    psnr = 20 * math.log10(peak.width / error) if error and peak.width else None
    return StepDrift(t, scale, float(np.abs(difference).max()), _part(error, scale), psnr)


def peak_of(data_range: tuple[float, float], sample: Array) -> Peak:
    """Return what PSNR is relative to: the data's range, or where the sample is no data, its own.

    Data stays within the data's range widened by half of it to each side; latents do not, nor does what a network
    without training makes.

    >>> peak_of((-1.0, 1.0), np.array([-1.1, 0.9])), peak_of((-1.0, 1.0), np.array([-4.0, 4.5]))
    (Peak(width=2.0, of='data_range'), Peak(width=8.5, of='sample'))
    """
    low, high = data_range
    width, least, most = high - low, float(sample.min()), float(sample.max())
    if low - width / 2 <= least and most <= high + width / 2:
        return Peak(width, "data_range")
    return Peak(most - least, "sample")


def _part(error: float, scale: float) -> float:
    if not error:
        return 0.0
    return error / scale if scale else math.inf
