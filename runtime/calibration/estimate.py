"""The mean of eps(x_t, t)^2 at each time, by Monte Carlo, from wherever an earlier run was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import NonFiniteError
from dpmrt.runtime.calibration.checkpoint import Checkpoint, Settings, write_checkpoint
from dpmrt.solvers_np import Level, NoiseSchedule
from dpmrt.solvers_np.prediction import to_eps

Array = NDArray[Any]
#: model(x, t, rows): the raw output for scaled states of the samples `rows`, at one time
RowModel: TypeAlias = Callable[[Array, float, slice], Array]
#: called with the network calls made, and how many there are in all
Progress: TypeAlias = Callable[[int, int], object]

#: seconds between two checkpoints
_EVERY = 1.0


def estimate(
    model: RowModel,
    samples: NDArray[np.float32],
    settings: Settings,
    *,
    schedule: NoiseSchedule,
    prediction: str,
    state: Checkpoint,
    path: Path | None = None,
    callback: Progress | None = None,
) -> Checkpoint:
    """Go on from `state` to the end; what is known is written to `path` about once a second, and when interrupted.

    The noise belongs to a time and a batch, whatever ran before, so that a run in parts gives the same bits.
    """
    starts = range(0, len(samples), settings.batch)
    total, written = len(settings.times) * len(starts), time.monotonic()
    try:
        while len(state.power) < len(settings.times):
            index, start = len(state.power), len(state.partial)
            rows = slice(start, min(start + settings.batch, len(samples)))
            noise = _noise(settings.seed, index, start, samples[rows].shape)
            level = _level(schedule, settings.times[index])
            state = state.with_batch(_powers(model, samples[rows], noise, level, prediction, rows))
            if callback is not None:
                callback(index * len(starts) + start // settings.batch + 1, total)
            if path is not None and time.monotonic() - written > _EVERY:
                write_checkpoint(path, state)
                written = time.monotonic()
    except BaseException:
        if path is not None:
            write_checkpoint(path, state)
        raise
    return state


def _level(schedule: NoiseSchedule, t: float) -> Level:
    return Level(t, *(float(f(t)) for f in (schedule.alpha, schedule.sigma, schedule.in_scale)))


def _noise(seed: int, index: int, start: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    bits = np.random.Philox(np.random.SeedSequence([seed, index, start]))
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


def _powers(
    model: RowModel, x0: Array, noise: Array, level: Level, prediction: str, rows: slice
) -> list[tuple[float, float]]:
    """Return the mean squares of the predicted noise and of the noise, for each sample."""
    x = level.alpha * x0.astype(np.float64) + level.sigma * noise
    raw = model((level.in_scale * x).astype(np.float32), level.t, rows).astype(np.float64)
    from_x, from_raw = to_eps(prediction, level)
    eps = from_x * x + from_raw * raw if from_x else from_raw * raw
    powers, of_noise = (np.square(a, dtype=np.float64).reshape(len(a), -1).mean(1) for a in (eps, noise))
    if not np.isfinite(powers).all():
        raise NonFiniteError(
            "the network returned NaN or infinity", got=f"t = {level.t:g}", expected="finite numbers"
        )
    return list(zip(powers.tolist(), of_noise.tolist()))
