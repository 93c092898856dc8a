"""How far apart two arrays are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import CallParity, Manifest, Peak, StepDrift
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


def peak_of(manifest: Manifest, sample: Array) -> Peak:
    """Return what PSNR is relative to: pictures of 1 or 3 channels are data, anything else is its own measure."""
    if sample.ndim == 4 and sample.shape[manifest.unet.channel_axis] in (1, 3):
        low, high = manifest.data_range
        return Peak(high - low, "data_range")
    return Peak(float(sample.max() - sample.min()), "sample")


def _part(error: float, scale: float) -> float:
    return error / scale if error else 0.0
