"""plan_from_diffusers: a StepPlan from a `scheduler_config.json`, one file a scheduler class.

Every key that changes a number is read; a key or a value that is not honoured is refused. Where diffusers'
released code departs from its paper, the default is what diffusers computes (docs/diffusers.md lists where).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dpmrt.solvers_np.compile import MAX_STEPS
from dpmrt.solvers_np.from_diffusers.config import class_name
from dpmrt.solvers_np.from_diffusers.ddim import plan_ddim
from dpmrt.solvers_np.from_diffusers.ddim_inverse import plan_ddim_inverse
from dpmrt.solvers_np.from_diffusers.ddpm import plan_ddpm
from dpmrt.solvers_np.from_diffusers.deis import plan_deis
from dpmrt.solvers_np.from_diffusers.dpm_inverse import plan_dpm_inverse
from dpmrt.solvers_np.from_diffusers.dpm_multistep import plan_dpm_multistep
from dpmrt.solvers_np.from_diffusers.dpm_sde import plan_dpm_sde
from dpmrt.solvers_np.from_diffusers.dpm_singlestep import plan_dpm_singlestep
from dpmrt.solvers_np.from_diffusers.edm_dpm import plan_edm_dpm
from dpmrt.solvers_np.from_diffusers.edm_euler import plan_edm_euler
from dpmrt.solvers_np.from_diffusers.euler import plan_euler, plan_euler_ancestral
from dpmrt.solvers_np.from_diffusers.flow_match import plan_flow_match_euler, plan_flow_match_heun
from dpmrt.solvers_np.from_diffusers.heun import plan_heun
from dpmrt.solvers_np.from_diffusers.ipndm import plan_ipndm
from dpmrt.solvers_np.from_diffusers.kdpm2 import plan_kdpm2, plan_kdpm2_ancestral
from dpmrt.solvers_np.from_diffusers.lcm import plan_lcm
from dpmrt.solvers_np.from_diffusers.lms import plan_lms
from dpmrt.solvers_np.from_diffusers.noise_schedule import schedule_from_diffusers
from dpmrt.solvers_np.from_diffusers.own_schedule import OWN_SCHEDULE, plan_own_schedule
from dpmrt.solvers_np.from_diffusers.part_way import part_way_plan
from dpmrt.solvers_np.from_diffusers.pndm import plan_pndm
from dpmrt.solvers_np.from_diffusers.prediction import prediction_from_diffusers
from dpmrt.solvers_np.from_diffusers.sa_solver import plan_sa_solver
from dpmrt.solvers_np.from_diffusers.score_sde_ve import plan_score_sde_ve
from dpmrt.solvers_np.from_diffusers.tcd import plan_tcd
from dpmrt.solvers_np.from_diffusers.unipc import plan_unipc
from dpmrt.solvers_np.options import choose, whole
from dpmrt.solvers_np.plans.plan import StepPlan

__all__ = ["CLASSES", "plan_from_diffusers", "prediction_from_diffusers", "schedule_from_diffusers"]

#: distilled classes take it in set_timesteps, the others keep earlier outputs
_STRENGTH_IS_A_KEY = frozenset(
    {"LCMScheduler", "TCDScheduler"}
    | {f"{name}Scheduler" for name in ("DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "LMSDiscrete")}
)
CLASSES: Mapping[str, Callable[[Mapping[str, Any], int], StepPlan]] = MappingProxyType(
    {
        "EulerDiscreteScheduler": plan_euler,
        "EulerAncestralDiscreteScheduler": plan_euler_ancestral,
        "HeunDiscreteScheduler": plan_heun,
        "LMSDiscreteScheduler": plan_lms,
        "KDPM2DiscreteScheduler": plan_kdpm2,
        "KDPM2AncestralDiscreteScheduler": plan_kdpm2_ancestral,
        "DPMSolverSDEScheduler": plan_dpm_sde,
        "EDMEulerScheduler": plan_edm_euler,
        "DDPMScheduler": plan_ddpm,
        "DDIMScheduler": plan_ddim,
        "DDIMInverseScheduler": plan_ddim_inverse,
        "LCMScheduler": plan_lcm,
        "TCDScheduler": plan_tcd,
        "FlowMatchEulerDiscreteScheduler": plan_flow_match_euler,
        "FlowMatchHeunDiscreteScheduler": plan_flow_match_heun,
        "ScoreSdeVeScheduler": plan_score_sde_ve,
        "DPMSolverMultistepScheduler": plan_dpm_multistep,
        "DPMSolverMultistepInverseScheduler": plan_dpm_inverse,
        "DPMSolverSinglestepScheduler": plan_dpm_singlestep,
        "EDMDPMSolverMultistepScheduler": plan_edm_dpm,
        "UniPCMultistepScheduler": plan_unipc,
        "DEISMultistepScheduler": plan_deis,
        "SASolverScheduler": plan_sa_solver,
        "PNDMScheduler": plan_pndm,
        "IPNDMScheduler": plan_ipndm,
    }
)


def plan_from_diffusers(scheduler_config: Mapping[str, Any], steps: int, **overrides: Any) -> StepPlan:
    """Compile the plan that a diffusers scheduler of this config would follow.

    `overrides` replace keys of the config, in diffusers' words; `eta` and `use_clipped_model_output`, which
    diffusers takes in `step`, are given here too, and so is the `strength` of its image-to-image pipelines.

    >>> plan_from_diffusers({"_class_name": "DDIMScheduler"}, 10, clip_sample=False).calls
    10
    """
    name = class_name(scheduler_config)
    compile_class = choose("scheduler class", name, {**CLASSES, OWN_SCHEDULE: plan_own_schedule})
    config, steps = {**scheduler_config, **overrides}, whole("steps", steps, 1, MAX_STEPS)
    if "strength" not in config or name in _STRENGTH_IS_A_KEY:
        return compile_class(config, steps)
    strength = config.pop("strength")
    return part_way_plan(compile_class(config, steps), steps, strength)
