"""DpmrtSchedule: a scheduler config of dpmrt's own, for networks that none of diffusers' classes describes.

It names a schedule of SCHEDULES, which may be one of continuous time, and what the bundle is sampled with by default:

    {"_class_name": "DpmrtSchedule", "schedule": "sub-vp", "parameters": {"time_scale": 999.0},
     "prediction_type": "epsilon", "solver": "dpmsolver++", "options": {}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.compile import compile_plan
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.prediction import prediction_from_diffusers
from dpmrt.solvers_np.options import accepted, choose
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.schedules.named import SCHEDULES, make_schedule
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule

OWN_SCHEDULE = "DpmrtSchedule"
_KEYS: dict[str, Any] = {
    "schedule": None,
    "parameters": {},
    "prediction_type": "epsilon",
    "solver": "dpmsolver++",
    "options": {},
}


def read_own_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """Return the schedule that the config names, made with its parameters.

    >>> read_own_schedule({"_class_name": "DpmrtSchedule", "schedule": "sub-vp"}).name
    'sub-vp'
    """
    keys = SchedulerConfig(OWN_SCHEDULE, config, _KEYS)
    factory = choose("schedule", keys["schedule"], SCHEDULES)
    parameters = _mapping(keys, "parameters")
    if "name" in parameters:
        raise OptionError(
            f"{OWN_SCHEDULE}: a name is no parameter", got="name", expected=", ".join(accepted(factory))
        )
    return make_schedule(keys["schedule"], **parameters)


def plan_own_schedule(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Compile the solver that the config names, with its options, on its schedule."""
    keys = SchedulerConfig(OWN_SCHEDULE, config, _KEYS)
    options = _mapping(keys, "options")
    if own := {"solver", "schedule", "steps", "prediction"}.intersection(options):
        raise OptionError(
            f"{OWN_SCHEDULE}: options may not hold what has a key of its own",
            got=", ".join(sorted(own)),
            expected="options of the solver or of its grid, or `grid`",
        )
    prediction = prediction_from_diffusers(config)
    return compile_plan(keys["solver"], read_own_schedule(config), steps, prediction=prediction, **options)


def _mapping(keys: SchedulerConfig, key: str) -> dict[str, Any]:
    value = keys[key]
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise OptionError(f"{keys.name}: {key} must be a table", got=repr(value), expected='as {"time_scale": 999.0}')
    return dict(value)
