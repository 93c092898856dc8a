"""EulerDiscreteScheduler and EulerAncestralDiscreteScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.churned import CHURN_KEYS, churned_euler
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.k_grids import k_grid, looked_up
from dpmrt.solvers_np.from_diffusers.numbers import sigmas
from dpmrt.solvers_np.from_diffusers.numbers.schedule import noise_ratios
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.euler_ancestral import euler_ancestral

#: an older name of the same thing, which diffusers still takes
_PREDICTIONS = {
    "epsilon": "epsilon",
    "sample": "sample",
    "original_sample": "sample",
    "v_prediction": "v_prediction",
}


def plan_euler(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return Euler's plan; the churn that diffusers takes in `step` is read from keys of those names.

    With churn, v is read at the level before it and divided by the noise after it, as diffusers does.
    """
    keys = SchedulerConfig("EulerDiscreteScheduler", config, {**sigmas.EULER_KEYS, **CHURN_KEYS})
    prediction = _PREDICTIONS[keys.choice("prediction_type", *_PREDICTIONS)]
    found = sigmas.euler(keys, steps)
    plan = churned_euler(
        k_grid(found, looked_up(noise_ratios(keys))),
        prediction,
        keys,
        (lambda here, hat: here) if prediction == "v_prediction" else (lambda here, hat: hat),
        spread=len(found.sigmas) - 1,
    )
    return described(plan, keys, "euler", steps, prediction)


def plan_euler_ancestral(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of Euler's ancestral sampler."""
    keys = SchedulerConfig("EulerAncestralDiscreteScheduler", config, sigmas.EULER_ANCESTRAL_KEYS)
    prediction = str(keys.choice("prediction_type", "epsilon", "v_prediction"))
    plan = euler_ancestral(k_grid(sigmas.euler_ancestral(keys, steps)), prediction)
    return described(plan, keys, "euler-ancestral", steps, prediction)
