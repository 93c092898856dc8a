"""diffusers' two inverse schedulers, with the scheduler that samples back, for the config of any scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.ddim import plan_ddim
from dpmrt.solvers_np.from_diffusers.ddim_inverse import plan_ddim_inverse
from dpmrt.solvers_np.from_diffusers.dpm_inverse import plan_dpm_inverse
from dpmrt.solvers_np.from_diffusers.dpm_multistep import plan_dpm_multistep
from dpmrt.solvers_np.from_diffusers.numbers.schedule import PLAIN_SCHEDULE_KEYS
from dpmrt.solvers_np.plans.plan import StepPlan

#: each with the class that samples
INVERSES: Mapping[str, str] = {
    "DDIMInverseScheduler": "DDIMScheduler",
    "DPMSolverMultistepInverseScheduler": "DPMSolverMultistepScheduler",
}
_COMMON = (*PLAIN_SCHEDULE_KEYS, "prediction_type")


def inverse_pair(
    name: str, scheduler_config: Mapping[str, Any], steps: int, **overrides: Any
) -> tuple[StepPlan, StepPlan]:
    """Return the plans up and down, for the schedule and the prediction of a config of any class.

    >>> up, down = inverse_pair("DDIMInverseScheduler", {"_class_name": "PNDMScheduler"}, 4)
    >>> up.timesteps.tolist(), down.timesteps.tolist()
    ([0.0, 250.0, 500.0, 750.0], [750.0, 500.0, 250.0, 0.0])
    """
    config = {key: scheduler_config[key] for key in _COMMON if key in scheduler_config}
    if name == "DDIMInverseScheduler":
        config = {**config, "clip_sample": False, "timestep_spacing": "leading", **overrides}
        return plan_ddim_inverse(config, steps), plan_ddim(config, steps)
    config = {**config, "timestep_spacing": "linspace", **overrides}
    return plan_dpm_inverse(config, steps), plan_dpm_multistep(config, steps)
