"""IPNDMScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.times import IPNDM_KEYS
from dpmrt.solvers_np.from_diffusers.numbers.times import ipndm as ipndm_times
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Levels
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers.ipndm import improved_pndm
from dpmrt.solvers_np.solvers.pndm import MOST_PAST

_KEYS: dict[str, Any] = {**IPNDM_KEYS, "first_x0": "zero"}


def plan_ipndm(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return iPNDM's plan, for a network that predicts v: diffusers knows no other here.

    Where no signal is left, as at its own first time, diffusers passes over the output and takes x0 as zero; the key
    `first_x0`, which it does not have, set to "predicted" takes the network's.
    """
    keys = SchedulerConfig("IPNDMScheduler", config, _KEYS)
    keys.whole("num_train_timesteps", 1)
    found = ipndm_times(keys, steps)
    if found.betas[0] < found.betas[-1]:
        raise OptionError(
            f"{keys.name}: trained_betas must fall",
            got=f"{found.betas[0]} to {found.betas[-1]:.7g}",
            expected="the most noise first",
        )
    after = np.append(found.timesteps[1:], np.nan)
    grid = Grid(
        Levels.of(found.timesteps, found.alphas[:-1], found.betas[:-1]),
        Levels.of(after, found.alphas[1:], found.betas[1:]),
    )
    blind = keys.choice("first_x0", "zero", "predicted") == "zero"
    plan = improved_pndm(grid, "v_prediction", order=min(MOST_PAST, steps), blind_start=blind)
    return described(plan, keys, "ipndm", steps, "v_prediction")
