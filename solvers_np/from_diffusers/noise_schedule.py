"""schedule_from_diffusers: the noise schedule that a network was trained with, by its scheduler's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig, class_name
from dpmrt.solvers_np.from_diffusers.numbers.edm_sigmas import EDM_KEYS, SDE_VE_KEYS
from dpmrt.solvers_np.from_diffusers.numbers.flow_sigmas import FLOW_MATCH_HEUN_KEYS
from dpmrt.solvers_np.from_diffusers.numbers.schedule import SCHEDULE_KEYS, read_schedule
from dpmrt.solvers_np.from_diffusers.own_schedule import OWN_SCHEDULE, read_own_schedule
from dpmrt.solvers_np.options import choose
from dpmrt.solvers_np.schedules.named import make_schedule
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule

_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")


def schedule_from_diffusers(scheduler_config: Mapping[str, Any]) -> NoiseSchedule:
    """Return the noise schedule of a diffusers scheduler config, with the float32 table that diffusers keeps.

    >>> schedule_from_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}).name
    'flow'
    """
    name = class_name(scheduler_config)
    if name == OWN_SCHEDULE:
        return read_own_schedule(scheduler_config)
    if name == "IPNDMScheduler":
        raise OptionError(
            "IPNDMScheduler has a noise schedule of its own, for its own solver alone",
            got=name,
            expected="a class with betas",
            fix="leave out `solver`, so that the config is followed",
        )
    if name in _FLOW:
        keys = _keys(name, scheduler_config, FLOW_MATCH_HEUN_KEYS)
        return make_schedule("flow", train_steps=keys.whole("num_train_timesteps", 2), shift=keys.number("shift"))
    if scheduler_config.get("use_flow_sigmas"):
        keys = _keys(name, scheduler_config, {"num_train_timesteps": 1000, "flow_shift": 1.0})
        shift = keys.number("flow_shift")
        return make_schedule("flow", train_steps=keys.whole("num_train_timesteps", 2), shift=shift)
    if name in _EDM:
        keys = _keys(name, scheduler_config, {k: EDM_KEYS[k] for k in ("sigma_min", "sigma_max", "sigma_data")})
        return make_schedule("edm", **{k: keys.number(k) for k in ("sigma_min", "sigma_max", "sigma_data")})
    if name == "ScoreSdeVeScheduler":
        keys = _keys(name, scheduler_config, {k: SDE_VE_KEYS[k] for k in ("sigma_min", "sigma_max")})
        ends = {k: keys.number(k) for k in ("sigma_min", "sigma_max")}
        return make_schedule("ve", network_time="sigma", **ends)
    from dpmrt.solvers_np.from_diffusers import CLASSES  # the registry's files import this one

    choose("scheduler class", name, CLASSES)
    return read_schedule(_keys(name, scheduler_config, SCHEDULE_KEYS), also=("exp", "sigmoid", "laplace"))


def _keys(name: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> SchedulerConfig:
    return SchedulerConfig(name, {key: value for key, value in config.items() if key in defaults}, defaults)
