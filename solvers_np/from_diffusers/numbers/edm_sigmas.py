"""Sigmas and times of EDM's two classes and of the variance-exploding SDE."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers.sigmas import Sigmas, final_sigma
from dpmrt.solvers_np.from_diffusers.optional import positive
from dpmrt.solvers_np.grids.ladders import exponential, karras
from dpmrt.solvers_np.levels import Floats

EDM_KEYS: dict[str, Any] = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}
SDE_VE_KEYS: dict[str, Any] = {
    "num_train_timesteps": 2000,
    "snr": 0.15,
    "sigma_min": 0.01,
    "sigma_max": 1348.0,
    "sampling_eps": 1e-5,
    "correct_steps": 1,
}


@dataclasses.dataclass(frozen=True, eq=False)
class VeSigmas(Sigmas):
    """`sigmas` at the times, `discrete` the table that a step reads: from `here` to `after` at each of its times."""

    discrete: Floats = dataclasses.field(kw_only=True)
    here: Floats = dataclasses.field(kw_only=True)
    after: Floats = dataclasses.field(kw_only=True)


def edm(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what EDMEulerScheduler and EDMDPMSolverMultistepScheduler keep; times are log(sigma) / 4.

    One step down to sigma_min goes there; EDMEuler would repeat its only sigma, and do nothing.

    >>> edm(SchedulerConfig("EDMEulerScheduler", {}, EDM_KEYS), 2).sigmas.round(3).tolist()
    [80.0, 0.002, 0.0]
    """
    low, high = _ends(config)
    if config.choice("sigma_schedule", "karras", "exponential") == "karras":
        sigmas = karras(high, low, steps, rho=positive(config, "rho"))
    else:
        # one step alone starts at sigma_min: diffusers builds this ladder from below
        sigmas = exponential(high, low, steps) if steps > 1 else np.array([low])
    return Sigmas(np.append(sigmas, final_sigma(config, low)), 0.25 * np.log(sigmas), math.hypot(high, 1))


def sde_ve(config: SchedulerConfig, steps: int) -> VeSigmas:
    """Return what ScoreSdeVeScheduler keeps after `set_timesteps(steps)` and `set_sigmas(steps)`.

    A step reads the table at (steps - 1) t, truncated, and at the place below it, zero below the first.
    """
    low, high = _ends(config)
    times = np.linspace(1, positive(config, "sampling_eps"), steps)
    discrete = np.exp(np.linspace(math.log(low), math.log(high), steps))
    place = np.floor(times * (steps - 1) + 1e-9).astype(np.int64)
    after = np.where(place > 0, discrete[np.maximum(place - 1, 0)], 0.0)
    sigmas = low * (high / low) ** times
    return VeSigmas(sigmas, times, high, discrete=discrete, here=discrete[place], after=after)


def _ends(config: SchedulerConfig) -> tuple[float, float]:
    low, high = positive(config, "sigma_min"), positive(config, "sigma_max")
    if not low < high:
        raise OptionError(
            f"{config.name}: sigma_min must lie below sigma_max",
            got=f"sigma_min = {low}, sigma_max = {high}",
            expected="0 < sigma_min < sigma_max",
        )
    return low, high
