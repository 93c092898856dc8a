"""plan_from_diffusers: a StepPlan from a `scheduler_config.json`, one file a scheduler class.

Every key that changes a number is read; a key or a value that is not honoured is refused. Where diffusers'
released code departs from its paper, the default is what diffusers computes (docs/diffusers.md lists where).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.compile import MAX_STEPS
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig, class_name
from dpmrt.solvers_np.from_diffusers.ddim import plan_ddim
from dpmrt.solvers_np.from_diffusers.ddpm import plan_ddpm
from dpmrt.solvers_np.from_diffusers.dpm_multistep import plan_dpm_multistep
from dpmrt.solvers_np.from_diffusers.schedule import SCHEDULE_KEYS, read_schedule
from dpmrt.solvers_np.options import choose, whole
from dpmrt.solvers_np.plan import StepPlan
from dpmrt.solvers_np.schedule import NoiseSchedule

CLASSES: Mapping[str, Callable[[Mapping[str, Any], int], StepPlan]] = MappingProxyType(
    {
        "DDPMScheduler": plan_ddpm,
        "DDIMScheduler": plan_ddim,
        "DPMSolverMultistepScheduler": plan_dpm_multistep,
    }
)


def plan_from_diffusers(scheduler_config: Mapping[str, Any], steps: int, **overrides: Any) -> StepPlan:
    """Compile the plan that a diffusers scheduler of this config would follow.

    `overrides` replace keys of the config, in diffusers' words; `eta` and `use_clipped_model_output`, which
    diffusers takes in `step`, are given here too.

    >>> plan_from_diffusers({"_class_name": "DDIMScheduler"}, 10, clip_sample=False).calls
    10
    """
    name = class_name(scheduler_config)
    compile_class = choose("scheduler class", name, CLASSES)
    return compile_class({**scheduler_config, **overrides}, whole("steps", steps, 1, MAX_STEPS))


def schedule_from_diffusers(scheduler_config: Mapping[str, Any]) -> NoiseSchedule:
    """Return the noise schedule of a diffusers scheduler config, with the float32 table that diffusers keeps."""
    name = class_name(scheduler_config)
    choose("scheduler class", name, CLASSES)
    subset = {key: value for key, value in scheduler_config.items() if key in SCHEDULE_KEYS}
    if subset.get("rescale_betas_zero_snr"):
        raise OptionError(
            "a schedule rescaled to zero terminal SNR has no lambda at its end",
            got="rescale_betas_zero_snr=true",
            expected="the scheduler's own solver",
            fix="leave out `solver`, so that the config is followed",
        )
    return read_schedule(SchedulerConfig(name, subset, SCHEDULE_KEYS))
