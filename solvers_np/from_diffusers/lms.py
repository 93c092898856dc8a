"""LMSDiscreteScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.k_grids import k_grid
from dpmrt.solvers_np.from_diffusers.numbers import sigmas
from dpmrt.solvers_np.from_diffusers.part_way import STRENGTH, part_way_grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.lms import lms


def plan_lms(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of LMS; `order`, which diffusers takes in `step`, is a key. Steps may be fewer than it."""
    keys = SchedulerConfig("LMSDiscreteScheduler", config, {**sigmas.LMS_KEYS, "order": 4, **STRENGTH})
    prediction = str(keys.choice("prediction_type", "epsilon", "sample", "v_prediction"))
    grid, _ = part_way_grid(keys, k_grid(sigmas.lms(keys, steps)))
    plan = lms(grid, prediction, order=min(keys.whole("order", 1, 4), len(grid)))
    return described(plan, keys, "lms", steps, prediction)
