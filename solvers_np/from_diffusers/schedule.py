"""The table of cumulative alphas as diffusers keeps it, in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.schedule import DiscreteVP
from dpmrt.solvers_np.schedules import MAX_TRAIN_STEPS, squaredcos_cap_v2

SCHEDULE_KEYS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
}
Single = NDArray[np.float32]


def read_schedule(config: SchedulerConfig) -> DiscreteVP:
    """Return the schedule of a config."""
    betas = _betas(config)
    if not ((betas > 0) & (betas < 1)).all():
        index = int(np.flatnonzero(~((betas > 0) & (betas < 1)))[0])
        raise OptionError("a beta is outside (0, 1)", got=f"betas[{index}] = {betas[index]}", expected="0 < beta < 1")
    if config.flag("rescale_betas_zero_snr"):
        betas = _zero_terminal_snr(betas)
    table = np.cumprod((np.float32(1) - betas).astype(np.float64)).astype(np.float32).astype(np.float64)
    trained = config["trained_betas"] is not None
    return DiscreteVP(table, name="trained_betas" if trained else str(config["beta_schedule"]))


def _betas(config: SchedulerConfig) -> Single:
    steps = config.whole("num_train_timesteps", 2, MAX_TRAIN_STEPS)
    if config["trained_betas"] is not None:
        try:
            betas = np.asarray(config["trained_betas"], dtype=np.float32)
        except (TypeError, ValueError):
            betas = np.empty(0, np.float32)
        if betas.shape != (steps,) or not np.isfinite(betas).all():
            raise OptionError(
                f"{config.name}: trained_betas must be a row of finite numbers",
                got=f"shape {betas.shape}",
                expected=f"{steps} numbers, as num_train_timesteps",
            )
        return betas
    name = config.choice("beta_schedule", "linear", "scaled_linear", "squaredcos_cap_v2")
    start, end = config.number("beta_start"), config.number("beta_end")
    if name == "linear":
        return _linspace(start, end, steps)
    if name == "scaled_linear":
        return np.asarray(_linspace(math.sqrt(start), math.sqrt(end), steps) ** 2)
    return squaredcos_cap_v2(steps).astype(np.float32)


def _linspace(start: float, end: float, steps: int) -> Single:
    """Count from both ends towards the middle, rounding each sum once to float32, as torch.linspace does."""
    first, last = np.float32(start), np.float32(end)
    stride = np.float64(np.float32((last - first) / np.float32(steps - 1)))
    index = np.arange(steps)
    values = np.where(index < steps // 2, first + stride * index, last - stride * (steps - 1 - index))
    return values.astype(np.float32)


def _zero_terminal_snr(betas: Single) -> Single:
    """Shift and scale sqrt(alpha bar) so that it ends at zero (Lin et al. 2024, algorithm 1)."""
    root = np.sqrt(np.cumprod((np.float32(1) - betas).astype(np.float64)).astype(np.float32))
    first, last = root[0].copy(), root[-1].copy()
    root = (root - last) * (first / (first - last))
    bars = root**2
    return np.asarray(np.float32(1) - np.concatenate([bars[:1], bars[1:] / bars[:-1]]))
