"""Sigmas and times of rectified flow: shifts of its noise shares, and the two flow-matching classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers.sigma_ladders import LADDER_KEYS, climb_down, ladder_of
from dpmrt.solvers_np.from_diffusers.numbers.sigmas import Sigmas, StagedSigmas
from dpmrt.solvers_np.from_diffusers.optional import number_or_none, positive, row_or_none
from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.schedules.betas import MAX_TRAIN_STEPS

FLOW_MATCH_HEUN_KEYS: dict[str, Any] = {"num_train_timesteps": 1000, "shift": 1.0}
FLOW_MATCH_EULER_KEYS: dict[str, Any] = {
    **FLOW_MATCH_HEUN_KEYS,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": None,
    **LADDER_KEYS,
    "time_shift_type": "exponential",
    "stochastic_sampling": False,
    "mu": None,
    "image_seq_len": None,
    "sigmas": None,
}


def flow_match_euler(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what FlowMatchEulerDiscreteScheduler keeps, shifted twice at its low end as diffusers does.

    With dynamic shifting, `mu` is read, or worked out from `image_seq_len` as diffusers' pipelines do; `sigmas` are
    the shares of noise before they are shifted.

    >>> config = SchedulerConfig("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, FLOW_MATCH_EULER_KEYS)
    >>> flow_match_euler(config, 2).sigmas.round(4).tolist()
    [1.0, 0.0089, 0.0]
    """
    total, dynamic = _train_steps(config), config.flag("use_dynamic_shifting")
    shift = positive(config, "shift")
    sigmas = given_shares(config, steps)
    if sigmas is None:
        lowest = 1 / total if dynamic else float(shifted(np.array([1 / total]), shift)[0])
        sigmas = np.linspace(1.0, lowest, steps)
    if dynamic:
        sigmas = time_shifted(config, sigmas)
    else:
        read_mu(config)
        sigmas = shifted(sigmas, shift)
    sigmas = stretched(config, sigmas)
    ladder = ladder_of(config)
    if ladder is not None:
        sigmas = climb_down(ladder, float(sigmas[0]), float(sigmas[-1]), steps)
    inverted = config.flag("invert_sigmas")
    sigmas = 1.0 - sigmas if inverted else sigmas
    return Sigmas(np.append(sigmas, 1.0 if inverted else 0.0), sigmas * total)


def flow_match_heun(config: SchedulerConfig, steps: int) -> StagedSigmas:
    """Return what FlowMatchHeunDiscreteScheduler keeps, shifted twice at its low end as diffusers does."""
    total, shift = _train_steps(config), positive(config, "shift")
    lowest = float(shifted(np.array([1 / total]), shift)[0])
    levels = shifted(np.linspace(1.0, lowest, steps), shift)
    times = levels * total
    return StagedSigmas(
        np.concatenate([levels[:1], np.repeat(levels[1:], 2), [0.0]]),
        np.concatenate([times[:1], np.repeat(times[1:], 2)]),
        levels=np.append(levels, 0.0),
        times=times,
    )


def given_shares(config: SchedulerConfig, steps: int) -> Floats | None:
    """Return the shares of noise that `sigmas` gives, or None."""
    sigmas = row_or_none(config, "sigmas", steps)
    if sigmas is not None and not (sigmas[-1] > 0 and sigmas[0] <= 1):
        raise OptionError(f"{config.name}: sigmas of a flow lie above 0 and at most at 1", got=repr(sigmas.tolist()))
    return sigmas


def shifted(sigmas: Floats, shift: float) -> Floats:
    """Return shares of noise moved towards one by a shift above one."""
    return np.asarray(shift * sigmas / (1 + (shift - 1) * sigmas))


def time_shifted(config: SchedulerConfig, sigmas: Floats) -> Floats:
    """Return shares of noise shifted by exp(mu), or by mu where `time_shift_type` is "linear"."""
    mu = read_mu(config)
    if mu is None:
        raise OptionError(
            f"{config.name}: use_dynamic_shifting needs the shift of this resolution",
            got="mu = None",
            expected="a number",
            fix="pass mu=...",
        )
    linear = config["time_shift_type"] == "linear"
    if linear and not mu > 0:
        raise OptionError(f"{config.name}: mu must be positive where time_shift_type is 'linear'", got=repr(mu))
    factor = mu if linear else math.exp(mu)
    return np.asarray(factor / (factor + (1 / sigmas - 1)))


def stretched(config: SchedulerConfig, sigmas: Floats) -> Floats:
    """Return shares of noise stretched so that the last is `shift_terminal`, where it is given and not zero."""
    terminal = number_or_none(config, "shift_terminal")
    if not terminal:
        return sigmas
    if not (0 < terminal < 1 and sigmas[-1] < 1):
        raise OptionError(
            f"{config.name}: shift_terminal cannot be reached from a single sigma of 1, nor lie outside 0 and 1",
            got=f"shift_terminal = {terminal}, last sigma {sigmas[-1]:g}",
            expected="a number from 0 to below 1, and at least two steps",
        )
    return np.asarray(1 - (1 - sigmas) / ((1 - sigmas[-1]) / (1 - terminal)))


def read_mu(config: SchedulerConfig) -> float | None:
    """Return the exponent of dynamic shifting, or None; refused where the config does not shift dynamically."""
    mu, length = number_or_none(config, "mu"), number_or_none(config, "image_seq_len")
    if "use_dynamic_shifting" not in config:
        return None
    kind = config.choice("time_shift_type", "exponential", "linear")
    given = "mu" if mu is not None else "image_seq_len" if length is not None else None
    if given and not config.flag("use_dynamic_shifting"):
        raise OptionError(
            f"{config.name}: {given} is read with use_dynamic_shifting only",
            got=f"{given} = {config[given]!r}",
            expected="use_dynamic_shifting = true",
        )
    if mu is None and length is not None:
        short, long = config.number("base_image_seq_len"), config.number("max_image_seq_len")
        base, most = config.number("base_shift"), config.number("max_shift")
        slope = (most - base) / (long - short)
        mu = base + slope * (length - short)
    if mu is not None and kind == "exponential" and mu > 700:
        raise OptionError(f"{config.name}: exp(mu) is no finite number", got=f"mu = {mu}")
    return mu


def _train_steps(config: SchedulerConfig) -> int:
    return config.whole("num_train_timesteps", 1, MAX_TRAIN_STEPS)
