"""ScoreSdeVeScheduler: reverse diffusion, corrected by Langevin steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.edm_sigmas import SDE_VE_KEYS, sde_ve
from dpmrt.solvers_np.from_diffusers.optional import positive
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Levels
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.score_sde import predictor_corrector, reverse_diffusion


def plan_score_sde_ve(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return the plan of ScoreSdeVePipeline: `correct_steps` Langevin steps, then a predicted one, at each time.

    The network predicts the score, and is told sigma, not the time. The last step adds no noise, as the pipeline
    returns the mean of the last `step_pred`.
    """
    keys = SchedulerConfig("ScoreSdeVeScheduler", config, SDE_VE_KEYS)
    found = sde_ve(keys, steps)
    start = Levels.of(found.sigmas, 1.0, found.here)
    end = Levels.of(np.append(found.sigmas[1:], np.nan), 1.0, found.after)
    grid = Grid(start, end, init_scale=found.init_noise_sigma)
    if correct := keys.whole("correct_steps", 0):
        plan = predictor_corrector(grid, "score", snr=positive(keys, "snr"), corrector_steps=correct)
        return described(plan, keys, "predictor-corrector", steps, "score")
    return described(reverse_diffusion(grid, "score"), keys, "reverse-diffusion", steps, "score")
