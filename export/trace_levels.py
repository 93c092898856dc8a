"""How much signal and noise the state holds at each call, as far as a foreign scheduler says so."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.export.trace_basis import Recording

Floats = NDArray[np.float64]
_UNKNOWN = (0.0, 1.0)


def levels(recording: Recording) -> Floats:
    """Return (alpha, sigma) at each call and at the end; (0, 1) at calls of which the scheduler says nothing.

    In this order: a scaled input gives sigma for a state x0 + sigma eps; diffusers' own conversion of `sigmas`;
    `alphas_cumprod` at the time, for a state of variance 1; `alphas` and `betas` whose squares add up to 1;
    `sigmas` from 0 to 1, for a rectified flow.
    """
    scheduler, calls, end = recording.scheduler, recording.calls, (1.0, 0.0)
    sigmas = _numbers(getattr(scheduler, "sigmas", None))
    fits = len(sigmas) == calls + 1
    if (recording.in_scale != 1).any():
        data = float(getattr(getattr(scheduler, "config", None), "sigma_data", 1.0))
        found = np.sqrt(np.maximum(recording.in_scale**-2.0 - data**2, 0.0))
        if fits and np.allclose(found, sigmas[:-1], rtol=1e-6):
            found = sigmas[:-1]
        last = float(sigmas[-1]) if fits else 0.0
        return np.stack([np.ones(calls + 1), np.append(found, last)], axis=1)
    convert = getattr(scheduler, "_sigma_to_alpha_sigma_t", None)
    if fits and callable(convert):
        return np.array([[float(v) for v in convert(sigma)] for sigma in scheduler.sigmas])
    bars = _numbers(getattr(scheduler, "alphas_cumprod", None))
    if len(bars) > 1:
        bar = np.clip(np.interp(recording.times, np.arange(len(bars)), bars), 0.0, 1.0)
        return np.vstack([np.stack([np.sqrt(bar), np.sqrt(1 - bar)], axis=1), end])
    pair = _numbers(getattr(scheduler, "alphas", None)), _numbers(getattr(scheduler, "betas", None))
    if len(pair[0]) == len(pair[1]) == calls + 1 and np.allclose(pair[0] ** 2 + pair[1] ** 2, 1.0, atol=1e-6):
        return np.stack(pair, axis=1)
    if fits and sigmas.min() >= 0 and sigmas.max() <= 1:
        return np.stack([1 - sigmas, sigmas], axis=1)
    return np.vstack([np.tile(_UNKNOWN, (calls, 1)), end])


def conversions(alpha: float, sigma: float) -> tuple[tuple[float, float], ...]:
    """Return weights of (state, output), up to a factor: x0 from eps or flow, x0 and eps from v, eps from flow."""
    return (1.0, -sigma), (alpha, -sigma), (sigma, alpha), (1.0, alpha)


def _numbers(values: Any) -> Floats:
    try:
        found = np.array([] if values is None else [float(v) for v in values])
    except (TypeError, ValueError):
        found = np.array([])
    return found if np.isfinite(found).all() else np.array([])
