"""DPMSolverMultistepScheduler."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.schedule import SCHEDULE_KEYS, read_schedule
from dpmrt.solvers_np.from_diffusers.spacing import SPACINGS, counted_back, inside
from dpmrt.solvers_np.grids import Grid
from dpmrt.solvers_np.plan import StepPlan
from dpmrt.solvers_np.prediction import PREDICTIONS
from dpmrt.solvers_np.schedule import Floats
from dpmrt.solvers_np.solvers import SOLVERS

_KEYS: dict[str, Any] = {
    **SCHEDULE_KEYS,
    "solver_order": 2,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
_NOT_YET = (
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
)
# What stands for the zero at the end of a schedule rescaled to zero terminal SNR, so that the first sigma is finite.
_LAST_ALPHA_CUMPROD = 2.0**-24
_ALGORITHMS = ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++")


def plan_dpm_multistep(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of DPM-Solver's multistep family."""
    keys = SchedulerConfig("DPMSolverMultistepScheduler", config, _KEYS)
    for key in _NOT_YET:
        if keys.flag(key):
            raise OptionError(f"{keys.name}: {key} is not supported yet", got=f"{key} = true", expected="false")
    if keys["variance_type"] is not None:
        raise OptionError(
            f"{keys.name}: a learned variance is not supported yet",
            got=f"variance_type = {keys['variance_type']!r}",
            expected="null",
        )
    algorithm = keys.choice("algorithm_type", *_ALGORITHMS)
    solver_type = keys.choice("solver_type", "midpoint", "heun")
    prediction = keys.choice("prediction_type", *PREDICTIONS)
    final = keys.choice("final_sigmas_type", "zero", "sigma_min")
    if final == "zero" and algorithm in ("dpmsolver", "sde-dpmsolver"):
        raise OptionError(
            f"{keys.name}: {algorithm} does not end at zero noise in diffusers",
            got="final_sigmas_type = 'zero'",
            expected="'sigma_min'",
            fix="set final_sigmas_type='sigma_min', or algorithm_type='dpmsolver++'",
        )
    bars = read_schedule(keys).alphas_cumprod.copy()
    if keys.flag("rescale_betas_zero_snr"):
        bars[-1] = _LAST_ALPHA_CUMPROD
    ratios = np.sqrt((1 - bars) / bars)
    last = 0.0 if final == "zero" else float(ratios[0])
    if keys.flag("use_karras_sigmas"):
        levels, times = _karras(ratios, steps, round_times=keys["beta_schedule"] != "squaredcos_cap_v2")
    else:
        times = _times(keys, ratios, steps)
        levels = ratios[times.astype(np.int64)]
    plan = SOLVERS[algorithm](
        Grid.at_sigmas(levels, times, last),
        prediction,
        order=keys.whole("solver_order", 1),
        solver_type=solver_type,
        lower_order_final=keys.flag("lower_order_final"),
        euler_at_final=keys.flag("euler_at_final"),
        **keys.limits(),
    )
    meta = {**plan.meta, "scheduler": keys.name, "solver": algorithm, "steps": steps, "prediction": prediction}
    return dataclasses.replace(plan, meta=meta)


def _times(keys: SchedulerConfig, ratios: Floats, steps: int) -> Floats:
    total = len(ratios)
    last = total - int(np.searchsorted(-np.log(ratios[::-1]), keys.number("lambda_min_clipped")))
    spacing = keys.choice("timestep_spacing", *SPACINGS)
    most = total if spacing == "trailing" else last - 1
    if steps > most:
        raise OptionError(f"more steps than {spacing!r} has times", got=f"steps={steps}", expected=f"1 to {most}")
    times: Floats
    if spacing == "linspace":
        times = np.linspace(0, last - 1, steps + 1).round()[:0:-1].astype(np.float64)
    elif spacing == "leading":
        stride, offset = last // (steps + 1), keys.whole("steps_offset", 0)
        times = (np.arange(steps + 1)[:0:-1] * stride + offset).astype(np.float64)
    else:
        times = counted_back(last, total / steps)
    return inside(keys, times, total)


def _karras(ratios: Floats, steps: int, *, round_times: bool) -> tuple[Floats, Floats]:
    """Return Karras's noise levels (eq. 5, rho = 7) and the times nearest to them in log sigma.

    The cosine schedule keeps whole times too, because diffusers stores its times as integers: it truncates there.
    """
    high, low = ratios[-1] ** (1 / 7), ratios[0] ** (1 / 7)
    levels = (high + np.linspace(0, 1, steps) * (low - high)) ** 7
    times = np.interp(np.log(levels), np.log(ratios), np.arange(len(ratios), dtype=np.float64))
    return levels, np.round(times) if round_times else np.floor(times)
