"""Times of the classes that keep no sigmas: PNDM, iPNDM, LCM, TCD, DDIM's inverse."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers.schedule import PLAIN_SCHEDULE_KEYS, SCHEDULE_KEYS
from dpmrt.solvers_np.from_diffusers.numbers.spacing import spaced_times
from dpmrt.solvers_np.from_diffusers.optional import array_of
from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.schedules.betas import MAX_TRAIN_STEPS

PNDM_KEYS: dict[str, Any] = {
    **PLAIN_SCHEDULE_KEYS,
    "skip_prk_steps": False,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 0,
}
IPNDM_KEYS: dict[str, Any] = {"num_train_timesteps": 1000, "trained_betas": None}
LCM_KEYS: dict[str, Any] = {
    **SCHEDULE_KEYS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "timestep_scaling": 10.0,
    "strength": 1.0,
}
TCD_KEYS = LCM_KEYS
DDIM_INVERSE_KEYS: dict[str, Any] = {
    **SCHEDULE_KEYS,
    "clip_sample": True,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
    "clip_sample_range": 1.0,
    "timestep_spacing": "leading",
}


@dataclasses.dataclass(frozen=True, eq=False)
class PndmTimes:
    """`timesteps` of all calls: those of the Runge-Kutta start (`prk`), then those of the multistep (`plms`)."""

    prk: Floats
    plms: Floats

    @property
    def timesteps(self) -> Floats:
        """Return the times of all calls."""
        return np.concatenate([self.prk, self.plms])


@dataclasses.dataclass(frozen=True, eq=False)
class IpndmTimes:
    """`betas` weigh the noise and `alphas` the data, with a last pair of no noise; a time in (0, 1] for each call."""

    timesteps: Floats
    betas: Floats
    alphas: Floats


def pndm(config: SchedulerConfig, steps: int) -> PndmTimes:
    """Return the times of PNDMScheduler.

    >>> pndm(SchedulerConfig("PNDMScheduler", {"skip_prk_steps": True}, PNDM_KEYS), 4).timesteps.tolist()
    [750.0, 500.0, 500.0, 250.0, 0.0]
    """
    rising = spaced_times(config, steps)[::-1]
    if config.flag("skip_prk_steps"):
        return PndmTimes(np.empty(0), np.concatenate([rising[:-1], rising[-2:-1], rising[-1:]])[::-1])
    if len(rising) < 4:
        raise OptionError(
            f"{config.name}: the Runge-Kutta start takes four times",
            got=f"steps={steps}",
            expected="at least 4",
            fix="ask for more steps, or set skip_prk_steps=True",
        )
    half = config.whole("num_train_timesteps", 2) // steps // 2
    stages = np.repeat(rising[-4:], 2) + np.tile([0, half], 4)
    return PndmTimes(np.repeat(stages[:-1], 2)[1:-1][::-1], rising[:-3][::-1])


def ipndm(config: SchedulerConfig, steps: int) -> IpndmTimes:
    """Return the times, betas and alphas of IPNDMScheduler, whose betas are its own: sin^2, or `trained_betas`."""
    given = config["trained_betas"]
    if given is None:
        betas = np.sin(np.append(np.linspace(1, 0, steps + 1)[:-1], 0.0) * np.pi / 2) ** 2
    else:
        betas = array_of(given).astype(np.float32).astype(np.float64)
        if betas.shape != (steps + 1,) or not ((betas >= 0) & (betas <= 1)).all():
            raise OptionError(
                f"{config.name}: trained_betas must be a row of numbers from 0 to 1, one more than steps",
                got=f"shape {betas.shape}, steps={steps}",
                expected=f"{steps + 1} numbers",
            )
    alphas = np.sqrt(1 - betas**2)
    return IpndmTimes((np.arctan2(betas, alphas) / np.pi * 2)[:-1], betas, alphas)


def lcm(config: SchedulerConfig, steps: int) -> Floats:
    """Return the times of LCMScheduler and TCDScheduler: evenly chosen from those of the distillation, last first.

    >>> lcm(SchedulerConfig("LCMScheduler", {}, LCM_KEYS), 4).tolist()
    [999.0, 759.0, 499.0, 259.0]
    """
    total = config.whole("num_train_timesteps", 2, MAX_TRAIN_STEPS)
    original = config.whole("original_inference_steps", 1, total)
    strength = config.number("strength")
    if not 0 < strength <= 1:
        raise OptionError(
            f"{config.name}: strength is out of range", got=repr(strength), expected="0 < strength <= 1"
        )
    taught = (np.arange(1, int(original * strength) + 1) * (total // original) - 1)[::-1]
    if steps > len(taught):
        raise OptionError(
            f"{config.name}: more steps than original_inference_steps x strength",
            got=f"steps={steps}, original_inference_steps = {original}, strength = {strength}",
            expected=f"1 to {len(taught)}",
            fix="ask for fewer steps",
        )
    chosen = np.floor(np.linspace(0, len(taught), num=steps, endpoint=False)).astype(np.int64)
    return taught[chosen].astype(np.float64)


def ddim_inverse(config: SchedulerConfig, steps: int) -> Floats:
    """Return the times of DDIMInverseScheduler, first first."""
    config.choice("timestep_spacing", "leading", "trailing")
    return np.ascontiguousarray(spaced_times(config, steps)[::-1])
