"""The table of cumulative alphas as diffusers keeps it, in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.optional import array_of, raised
from dpmrt.solvers_np.schedules.betas import MAX_TRAIN_STEPS, squaredcos_cap_v2
from dpmrt.solvers_np.schedules.schedule import DiscreteVP, Floats

SCHEDULE_KEYS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
}
#: those of the classes that do not rescale
PLAIN_SCHEDULE_KEYS = {key: value for key, value in SCHEDULE_KEYS.items() if key != "rescale_betas_zero_snr"}
#: the beta schedules that every class knows
NAMES = ("linear", "scaled_linear", "squaredcos_cap_v2")
#: what stands for the zero at the end of a rescaled schedule, so that the first sigma is finite
LAST_ALPHA_CUMPROD = 2.0**-24
Single = NDArray[np.float32]


def read_schedule(config: SchedulerConfig, *, also: tuple[str, ...] = ()) -> DiscreteVP:
    """Return the schedule of a config; `also` names the beta schedules that few classes know.

    Those are "exp" (Heun), "sigmoid" and "laplace" (DDPM).
    """
    betas = _betas(config, also)
    if not ((betas > 0) & (betas < 1)).all():
        index = int(np.flatnonzero(~((betas > 0) & (betas < 1)))[0])
        raise OptionError("a beta is outside (0, 1)", got=f"betas[{index}] = {betas[index]}", expected="0 < beta < 1")
    if raised(config, "rescale_betas_zero_snr"):
        betas = _zero_terminal_snr(betas)
    table = np.cumprod((np.float32(1) - betas).astype(np.float64)).astype(np.float32).astype(np.float64)
    trained = config["trained_betas"] is not None
    return DiscreteVP(table, name="trained_betas" if trained else str(config["beta_schedule"]))


def noise_ratios(config: SchedulerConfig, *, also: tuple[str, ...] = ()) -> Floats:
    """Return sigma / alpha at each training time; a rescaled schedule ends at 2^12 in place of infinity."""
    bars = read_schedule(config, also=also).alphas_cumprod.copy()
    if raised(config, "rescale_betas_zero_snr"):
        bars[-1] = LAST_ALPHA_CUMPROD
    return np.asarray(np.sqrt((1 - bars) / bars))


def _betas(config: SchedulerConfig, also: tuple[str, ...]) -> Single:
    steps = config.whole("num_train_timesteps", 2, MAX_TRAIN_STEPS)
    if config["trained_betas"] is not None:
        betas = array_of(config["trained_betas"]).astype(np.float32)
        if betas.shape != (steps,) or not np.isfinite(betas).all():
            raise OptionError(
                f"{config.name}: trained_betas must be a row of finite numbers",
                got=f"shape {betas.shape}",
                expected=f"{steps} numbers, as num_train_timesteps",
            )
        return betas
    name = config.choice("beta_schedule", *NAMES, *also)
    start, end = _beta(config, "beta_start"), _beta(config, "beta_end")
    if name == "linear":
        return _linspace(start, end, steps)
    if name == "scaled_linear":
        return np.asarray(_linspace(math.sqrt(start), math.sqrt(end), steps) ** 2)
    if name == "sigmoid":
        rise = (1 / (1 + np.exp(-_linspace(-6.0, 6.0, steps).astype(np.float64)))).astype(np.float32)
        return np.asarray(rise * np.float32(end - start) + np.float32(start))
    if name in _ALPHA_BARS:
        bars = _ALPHA_BARS[name](np.arange(steps + 1) / steps)
        return np.minimum(1 - bars[1:] / bars[:-1], 0.999).astype(np.float32)
    return squaredcos_cap_v2(steps).astype(np.float32)


def _beta(config: SchedulerConfig, key: str) -> float:
    beta = config.number(key)
    if not 0 <= beta < 1:
        raise OptionError(f"{config.name}: {key} is outside (0, 1)", got=repr(beta), expected="0 < beta < 1")
    return beta


def _laplace(u: Floats) -> Floats:
    """Return the square root of the signal's share where the log SNR is Laplace distributed, as diffusers has it."""
    log_snr = -0.5 * np.copysign(1, 0.5 - u) * np.log(1 - 2 * np.abs(0.5 - u) + 1e-6)
    return np.asarray(np.sqrt(np.exp(log_snr) / (1 + np.exp(log_snr))))


def _exp(u: Floats) -> Floats:
    return np.asarray(np.exp(-12.0 * u))


_ALPHA_BARS: dict[str, Callable[[Floats], Floats]] = {"laplace": _laplace, "exp": _exp}


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
