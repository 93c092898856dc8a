"""Sigmas and times of the classes that follow k-diffusion: Euler, Heun, LMS, KDPM2 and DPM++ SDE.

Their state holds the data with weight one, and is divided by sqrt(sigma^2 + 1) before each network call.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers.schedule import PLAIN_SCHEDULE_KEYS, SCHEDULE_KEYS, noise_ratios
from dpmrt.solvers_np.from_diffusers.numbers.sigma_ladders import LADDER_KEYS, climb_down, ladder_of, times_of
from dpmrt.solvers_np.from_diffusers.numbers.spacing import inside, unbounded_times
from dpmrt.solvers_np.from_diffusers.optional import positive_or_none, row_or_none
from dpmrt.solvers_np.levels import Floats

_SPACED: dict[str, Any] = {"timestep_spacing": "linspace", "steps_offset": 0}
_LATENT: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012}
EULER_ANCESTRAL_KEYS: dict[str, Any] = {**SCHEDULE_KEYS, "prediction_type": "epsilon", **_SPACED}
EULER_KEYS: dict[str, Any] = {
    **EULER_ANCESTRAL_KEYS,
    **LADDER_KEYS,
    "interpolation_type": "linear",
    "sigma_min": None,
    "sigma_max": None,
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
    "sigmas": None,
}
LMS_KEYS: dict[str, Any] = {**PLAIN_SCHEDULE_KEYS, "prediction_type": "epsilon", **LADDER_KEYS, **_SPACED}
KDPM2_KEYS: dict[str, Any] = {**LMS_KEYS, **_LATENT}
HEUN_KEYS: dict[str, Any] = {**KDPM2_KEYS, "clip_sample": False, "clip_sample_range": 1.0}
DPM_SDE_KEYS: dict[str, Any] = {**KDPM2_KEYS, "noise_sampler_seed": None}


@dataclasses.dataclass(frozen=True, eq=False)
class Sigmas:
    """What a scheduler keeps: `sigmas` with the final one, a time for each network call, the scale of first noise."""

    sigmas: Floats
    timesteps: Floats
    init_noise_sigma: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class StagedSigmas(Sigmas):
    """Of a scheduler that calls the network twice in a step and keeps its arrays interleaved.

    `levels` and `times` are the same before they are interleaved: n + 1 sigmas with the final zero, n times.
    """

    levels: Floats = dataclasses.field(kw_only=True)
    times: Floats = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True, eq=False)
class MidSigmas(StagedSigmas):
    """Of one whose second call is at a sigma of its own: `mid` and `mid_times`, one for each step but the last."""

    mid: Floats = dataclasses.field(kw_only=True)
    mid_times: Floats = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True, eq=False)
class AncestralSigmas(MidSigmas):
    """Of one that steps down further than its next sigma and adds noise: `down` and `up`, one for each step."""

    down: Floats = dataclasses.field(kw_only=True)
    up: Floats = dataclasses.field(kw_only=True)


def euler(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what EulerDiscreteScheduler keeps.

    With "log_linear" and no ladder there is one sigma more than times, and the final one is never reached; with
    continuous times of v-prediction there is a time for each sigma but the last. The `sigmas` given are steps + 1:
    their last is where the sample ends, and `final_sigmas_type` is not read.

    >>> config = SchedulerConfig("EulerDiscreteScheduler", {"use_karras_sigmas": True}, EULER_KEYS)
    >>> found = euler(config, 3)
    >>> found.timesteps.tolist()[0], len(found.sigmas)
    (999.0, 4)
    """
    ratios = noise_ratios(config)
    final = final_sigma(config, float(ratios[0]))
    given = row_or_none(config, "sigmas", steps + 1)
    if given is not None:
        sigmas, times = given, times_of(given[:-1], ratios)
    else:
        levels, times = _levels(config, steps, ratios)
        sigmas = np.append(levels, final)
    continuous = config.choice("timestep_type", "discrete", "continuous") == "continuous"
    if continuous and config["prediction_type"] == "v_prediction":
        times = 0.25 * np.log(sigmas[:-1])
    return Sigmas(sigmas, times, _init_noise_sigma(config, sigmas))


def euler_ancestral(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what EulerAncestralDiscreteScheduler keeps."""
    return _to_zero(config, steps, noise_ratios(config))


def lms(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what LMSDiscreteScheduler keeps."""
    return _to_zero(config, steps, noise_ratios(config))


def heun(config: SchedulerConfig, steps: int) -> StagedSigmas:
    """Return what HeunDiscreteScheduler keeps."""
    plain = _to_zero(config, steps, noise_ratios(config, also=("exp",)))
    return StagedSigmas(
        _twice_inside(plain.sigmas),
        _twice_after_first(plain.timesteps),
        plain.init_noise_sigma,
        levels=plain.sigmas,
        times=plain.timesteps,
    )


def dpm_sde(config: SchedulerConfig, steps: int) -> MidSigmas:
    """Return what DPMSolverSDEScheduler keeps. The sigmas between are not kept by it, their times are."""
    ratios = noise_ratios(config)
    plain = _to_zero(config, steps, ratios)
    mid = np.sqrt(plain.sigmas[:-2] * plain.sigmas[1:-1])
    return MidSigmas(_twice_inside(plain.sigmas), **_alternated(plain, mid, ratios))


def kdpm2(config: SchedulerConfig, steps: int) -> MidSigmas:
    """Return what KDPM2DiscreteScheduler keeps; `mid` is its sigmas_interpol, between each two sigmas."""
    ratios = noise_ratios(config)
    plain = _to_zero(config, steps, ratios, round_karras=True)
    mid = np.sqrt(plain.sigmas[:-2] * plain.sigmas[1:-1])
    return MidSigmas(twice_and_last(plain.sigmas), **_alternated(plain, mid, ratios))


def kdpm2_ancestral(config: SchedulerConfig, steps: int) -> AncestralSigmas:
    """Return what KDPM2AncestralDiscreteScheduler keeps; `mid` lies between each sigma and its `down`."""
    ratios = noise_ratios(config)
    plain = _to_zero(config, steps, ratios, round_karras=True)
    here, after = plain.sigmas[:-1], plain.sigmas[1:]
    up = after * np.sqrt((here - after) * (here + after)) / here
    down = after * (after / here)
    mid = np.sqrt(here[:-1] * down[:-1])
    return AncestralSigmas(twice_and_last(plain.sigmas), **_alternated(plain, mid, ratios), down=down, up=up)


def final_sigma(config: SchedulerConfig, lowest: float) -> float:
    """Return what the sigmas of a config end with: zero, or the lowest before it."""
    return 0.0 if config.choice("final_sigmas_type", "zero", "sigma_min") == "zero" else lowest


def twice_and_last(values: Floats) -> Floats:
    """Return a, b, b, ..., z, z, z: how KDPM2 interleaves."""
    return np.concatenate([values[:1], np.repeat(values[1:], 2), values[-1:]])


def _twice_inside(values: Floats) -> Floats:
    return np.concatenate([values[:1], np.repeat(values[1:-1], 2), values[-1:]])


def _twice_after_first(values: Floats) -> Floats:
    return np.concatenate([values[:1], np.repeat(values[1:], 2)])


def _alternated(plain: Sigmas, mid: Floats, ratios: Floats) -> dict[str, Any]:
    """Return what a class keeps, but for its sigmas, that calls the network at `mid` too, between the others."""
    timesteps, mid_times = _twice_after_first(plain.timesteps), times_of(mid, ratios)
    timesteps[1::2] = mid_times
    return {
        "timesteps": timesteps,
        "init_noise_sigma": plain.init_noise_sigma,
        "levels": plain.sigmas,
        "times": plain.timesteps,
        "mid": mid,
        "mid_times": mid_times,
    }


def _to_zero(config: SchedulerConfig, steps: int, ratios: Floats, *, round_karras: bool = False) -> Sigmas:
    levels, times = _levels(config, steps, ratios)
    if round_karras and ladder_of(config) == "use_karras_sigmas":
        times = np.round(times)
    sigmas = np.append(levels, 0.0)
    return Sigmas(sigmas, times, _init_noise_sigma(config, sigmas))


def _levels(config: SchedulerConfig, steps: int, ratios: Floats) -> tuple[Floats, Floats]:
    """Return sigmas and times without the final ones.

    A ladder runs between the ends of the spacing, so with "leading" it starts below the highest sigma.
    """
    total = len(ratios)
    spaced, ladder = unbounded_times(config, steps), ladder_of(config)
    log_linear = _is_log_linear(config)
    if ladder is not None:
        ends = ratios[[-1, 0]] if log_linear else np.interp(spaced[[0, -1]], np.arange(total), ratios)
        high, low = positive_or_none(config, "sigma_max"), positive_or_none(config, "sigma_min")
        levels = climb_down(ladder, ends[0] if high is None else high, ends[1] if low is None else low, steps)
        return levels, times_of(levels, ratios)
    times = inside(config, spaced[spaced >= 0], total)
    if log_linear:
        return np.exp(np.linspace(math.log(ratios[-1]), math.log(ratios[0]), steps + 1)), times
    return np.interp(times, np.arange(total), ratios), times


def _is_log_linear(config: SchedulerConfig) -> bool:
    key = "interpolation_type"
    return key in config and config.choice(key, "linear", "log_linear") == "log_linear"


def _init_noise_sigma(config: SchedulerConfig, sigmas: Floats) -> float:
    high = float(sigmas.max())
    return high if config["timestep_spacing"] != "leading" else math.hypot(high, 1)
