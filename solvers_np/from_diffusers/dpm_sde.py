"""DPMSolverSDEScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.k_grids import staged_grid
from dpmrt.solvers_np.from_diffusers.numbers import sigmas
from dpmrt.solvers_np.from_diffusers.optional import finite
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.dpmpp_2s import dpmpp_sde


def plan_dpm_sde(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of DPM++ SDE; `s_noise`, which diffusers takes in `step`, is a key.

    Which noise it draws is not the plan's: diffusers' Brownian tree is torchsde's, and its seed is refused.
    """
    keys = SchedulerConfig("DPMSolverSDEScheduler", config, {**sigmas.DPM_SDE_KEYS, "s_noise": 1.0})
    if keys["noise_sampler_seed"] is not None:
        raise OptionError(
            f"{keys.name}: the noise of torchsde cannot be drawn here",
            got=f"noise_sampler_seed = {keys['noise_sampler_seed']!r}",
            expected="null",
            fix="leave the seed out, and give run_plan noise=BrownianPath(seed)",
        )
    s_noise = finite(keys, "s_noise")
    prediction = str(keys.choice("prediction_type", "epsilon", "v_prediction"))
    plan = dpmpp_sde(staged_grid(sigmas.dpm_sde(keys, steps)), prediction, s_noise=s_noise)
    return described(plan, keys, "dpmsolver++sde", steps, prediction)
