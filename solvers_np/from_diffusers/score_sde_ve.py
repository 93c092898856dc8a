"""ScoreSdeVeScheduler, where it is linear: its predictor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.edm_sigmas import SDE_VE_KEYS, sde_ve
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Levels
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.score_sde import reverse_diffusion


def plan_score_sde_ve(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of the predictor. The network predicts the score, and is told sigma, not the time.

    The last step adds no noise, as ScoreSdeVePipeline returns the mean of the last `step_pred`. The Langevin
    corrector sets its step size by the norms of noise and score, which no plan does: `correct_steps` must be 0.
    """
    keys = SchedulerConfig("ScoreSdeVeScheduler", config, SDE_VE_KEYS)
    if keys.whole("correct_steps", 0):
        raise OptionError(
            f"{keys.name}: the Langevin corrector is not linear, so no plan runs it",
            got=f"correct_steps = {keys['correct_steps']}",
            expected="0",
            fix="pass correct_steps=0 to sample with the predictor alone",
        )
    found = sde_ve(keys, steps)
    start = Levels.of(found.sigmas, 1.0, found.here)
    end = Levels.of(np.append(found.sigmas[1:], np.nan), 1.0, found.after)
    grid = Grid(start, end, init_scale=found.init_noise_sigma)
    plan = reverse_diffusion(grid, "score")
    return described(plan, keys, "reverse-diffusion", steps, "score")
