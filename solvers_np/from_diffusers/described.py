"""What a plan says of the config that it came from."""

from __future__ import annotations

import dataclasses

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.plans.plan import StepPlan


def described(
    plan: StepPlan, keys: SchedulerConfig, solver: str, steps: int, prediction: str, parts: int | None = None
) -> StepPlan:
    """Return the plan with what it came from written beside it, and `parts`, if given, in place of its own."""
    meta = {**plan.meta, "scheduler": keys.name, "solver": solver, "steps": steps, "prediction": prediction}
    return dataclasses.replace(plan, meta=meta, parts=plan.parts if parts is None else parts)
