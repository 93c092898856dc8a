"""Sigmas and times of the DPM-Solver family: multistep, singlestep, inverse, UniPC, DEIS, SA-Solver.

Their state has variance one: sigma is the noise-to-signal ratio, or with `use_flow_sigmas` the share of noise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers.flow_sigmas import (
    given_shares,
    read_mu,
    shifted,
    stretched,
    time_shifted,
)
from dpmrt.solvers_np.from_diffusers.numbers.schedule import PLAIN_SCHEDULE_KEYS, SCHEDULE_KEYS, noise_ratios
from dpmrt.solvers_np.from_diffusers.numbers.sigma_ladders import (
    LADDER_KEYS,
    climb_down,
    climb_up,
    ladder_of,
    times_of,
)
from dpmrt.solvers_np.from_diffusers.numbers.sigmas import Sigmas, final_sigma
from dpmrt.solvers_np.from_diffusers.numbers.spacing import solver_times
from dpmrt.solvers_np.from_diffusers.optional import positive, positive_or_none, raised
from dpmrt.solvers_np.levels import Floats

FLOW_KEYS: dict[str, Any] = {"use_flow_sigmas": False, "flow_shift": 1.0}
DYNAMIC_KEYS: dict[str, Any] = {"use_dynamic_shifting": False, "time_shift_type": "exponential", "mu": None}
_SPACED: dict[str, Any] = {"timestep_spacing": "linspace", "steps_offset": 0}
_CLIPPED: dict[str, Any] = {"lambda_min_clipped": -math.inf}
_FINAL: dict[str, Any] = {"final_sigmas_type": "zero"}
DPM_SINGLESTEP_KEYS = {**PLAIN_SCHEDULE_KEYS, **LADDER_KEYS, **FLOW_KEYS, **_FINAL, **_CLIPPED, **DYNAMIC_KEYS}
DPM_MULTISTEP_KEYS = {
    **SCHEDULE_KEYS,
    **LADDER_KEYS,
    "use_lu_lambdas": False,
    **FLOW_KEYS,
    **_FINAL,
    **_CLIPPED,
    **_SPACED,
    **DYNAMIC_KEYS,
}
DPM_INVERSE_KEYS = {**PLAIN_SCHEDULE_KEYS, **LADDER_KEYS, **FLOW_KEYS, **_CLIPPED, **_SPACED}
SA_KEYS = DPM_INVERSE_KEYS
DEIS_KEYS = {**PLAIN_SCHEDULE_KEYS, **LADDER_KEYS, **FLOW_KEYS, **_SPACED, **DYNAMIC_KEYS}
UNIPC_KEYS = {
    **SCHEDULE_KEYS,
    **LADDER_KEYS,
    **FLOW_KEYS,
    **_SPACED,
    **_FINAL,
    **DYNAMIC_KEYS,
    "sigma_min": None,
    "sigma_max": None,
    "shift_terminal": None,
    "sigmas": None,
}
#: what UniPC takes from a first sigma of one, where no signal is left
_BELOW_ONE = 1e-6


def dpm_multistep(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what DPMSolverMultistepScheduler keeps.

    >>> found = dpm_multistep(SchedulerConfig("DPMSolverMultistepScheduler", {}, DPM_MULTISTEP_KEYS), 4)
    >>> found.timesteps.tolist(), found.sigmas[-1].item()
    ([999.0, 749.0, 500.0, 250.0], 0.0)
    """
    levels, times, ratios = _levels(config, steps, whole=config["beta_schedule"] != "squaredcos_cap_v2")
    return Sigmas(np.append(levels, final_sigma(config, float(ratios[0]))), times)


def dpm_singlestep(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what DPMSolverSinglestepScheduler keeps."""
    levels, times, ratios = _levels(config, steps)
    return Sigmas(np.append(levels, final_sigma(config, float(ratios[0]))), times)


def deis(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what DEISMultistepScheduler keeps: it never ends at zero; ladders and flow repeat their last sigma."""
    levels, times, ratios = _levels(config, steps)
    return Sigmas(np.append(levels, levels[-1] if _departs(config) else ratios[0]), times)


def sa_solver(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what SASolverScheduler keeps: it ends as DEIS does."""
    return deis(config, steps)


def unipc(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what UniPCMultistepScheduler keeps. With `sigmas`, those of the flow before it is shifted."""
    ladder, flow = ladder_of(config), raised(config, "use_flow_sigmas")
    for key in ("shift_terminal", "sigmas"):
        if config[key] is not None and not flow:
            raise OptionError(
                f"{config.name}: {key} is read with use_flow_sigmas only",
                got=f"{key} = {config[key]!r}",
                expected="null",
            )
    if flow and ladder is None:
        levels = _unipc_flow(config, steps)
        times = np.floor(levels * config.whole("num_train_timesteps", 2))
        return Sigmas(np.append(levels, final_sigma(config, float(levels[-1]))), times)
    if flow and ladder == "use_karras_sigmas":
        ratios = noise_ratios(config)
        levels = _on_ladder(config, ladder, ratios, steps)
        levels = levels / (levels + 1)
        times = np.floor(levels * len(ratios))
        return Sigmas(np.append(levels, final_sigma(config, float(levels[-1]))), times)
    levels, times, ratios = _levels(config, steps)
    return Sigmas(np.append(levels, final_sigma(config, float(ratios[0] if ladder is None else levels[-1]))), times)


def dpm_multistep_inverse(config: SchedulerConfig, steps: int) -> Sigmas:
    """Return what DPMSolverMultistepInverseScheduler keeps.

    A ladder's times that coincide are kept once, its sigmas are not, so there may be more sigmas than times and one;
    the flow's run down although the others run up. Both are as diffusers has them.
    """
    ratios, ladder = noise_ratios(config), ladder_of(config)
    if ladder is None and not raised(config, "use_flow_sigmas"):
        last = _below_clipped(config, ratios)
        times = solver_times(config, steps, last, encoding=True)
        return Sigmas(np.append(ratios[times.astype(np.int64)], ratios[last - 1]), times)
    if ladder is None:
        levels, times, _ = _levels(config, steps)
        return Sigmas(np.append(levels, levels[-1]), times)
    if raised(config, "use_flow_sigmas"):
        raise _ladder_and_flow(config, ladder)
    levels = climb_up(ladder, float(ratios[0]), float(ratios[-1]), steps)
    times = times_of(levels, ratios)
    times = np.round(times) if ladder == "use_karras_sigmas" else times
    _, first = np.unique(times, return_index=True)
    return Sigmas(np.append(levels, levels[-1]), np.floor(times[np.sort(first)]))


def _levels(config: SchedulerConfig, steps: int, *, whole: bool = True) -> tuple[Floats, Floats, Floats]:
    """Return sigmas and times without the final ones, and the table; Karras's times rounded if `whole`."""
    ladder, flow = ladder_of(config), raised(config, "use_flow_sigmas")
    ratios, mu = noise_ratios(config), read_mu(config)
    total = len(ratios)
    if flow and ladder is not None:
        raise _ladder_and_flow(config, ladder)
    if flow:
        sigmas = 1.0 - np.linspace(1, 1 / total, steps + 1)
        shift = positive(config, "flow_shift") if mu is None else math.exp(mu)
        levels = shifted(sigmas, shift)[:0:-1]
        return levels, np.floor(levels * total), ratios
    if ladder is not None:
        levels = _on_ladder(config, ladder, ratios, steps)
        times = times_of(levels, ratios)
        rounded = whole and ladder in ("use_karras_sigmas", "use_lu_lambdas")
        return levels, np.round(times) if rounded else np.floor(times), ratios
    times = solver_times(config, steps, _below_clipped(config, ratios))
    return ratios[times.astype(np.int64)], times, ratios


def _ladder_and_flow(config: SchedulerConfig, ladder: str) -> OptionError:
    return OptionError(
        f"{config.name}: a ladder of noise-to-signal ratios is no schedule of a flow",
        got=f"use_flow_sigmas and {ladder}",
        expected="one of them true",
    )


def _on_ladder(config: SchedulerConfig, ladder: str, ratios: Floats, steps: int) -> Floats:
    high, low = positive_or_none(config, "sigma_max"), positive_or_none(config, "sigma_min")
    return climb_down(
        ladder, float(ratios[-1]) if high is None else high, float(ratios[0]) if low is None else low, steps
    )


def _departs(config: SchedulerConfig) -> bool:
    return ladder_of(config) is not None or raised(config, "use_flow_sigmas")


def _below_clipped(config: SchedulerConfig, ratios: Floats) -> int:
    """Return one past the last time whose lambda is not clipped."""
    if "lambda_min_clipped" not in config:
        return len(ratios)
    clipped, lambdas = config.number("lambda_min_clipped"), -np.log(ratios[::-1])
    if not clipped < lambdas[-1]:
        raise OptionError(
            f"{config.name}: lambda_min_clipped leaves no time",
            got=f"lambda_min_clipped = {clipped}",
            expected=f"a number below {lambdas[-1]:.4g}, where the schedule begins",
        )
    return len(ratios) - int(np.searchsorted(lambdas, clipped))


def _unipc_flow(config: SchedulerConfig, steps: int) -> Floats:
    sigmas = given_shares(config, steps)
    if sigmas is None:
        sigmas = np.linspace(1, 1 / config.whole("num_train_timesteps", 2), steps + 1)[:-1]
    if config.flag("use_dynamic_shifting"):
        sigmas = time_shifted(config, sigmas)
    else:
        read_mu(config)
        sigmas = shifted(sigmas, positive(config, "flow_shift"))
    sigmas = stretched(config, sigmas)
    if abs(sigmas[0] - 1) < _BELOW_ONE:
        sigmas = np.append(sigmas[0] - _BELOW_ONE, sigmas[1:])
    return sigmas
