"""Part of a scheduler's steps, as diffusers' image-to-image pipelines take it: `get_timesteps`, `set_begin_index`."""

from __future__ import annotations

from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.grids.part_way import part_way, steps_kept
from dpmrt.solvers_np.plans.parts import cut, one_step_entries
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers import SOLVERS

#: a key of ours, of the classes that keep earlier outputs and so have to begin anew
STRENGTH: dict[str, Any] = {"strength": 1.0}


def part_way_grid(keys: SchedulerConfig, grid: Grid) -> tuple[Grid, int]:
    """Return the grid's last part, and how many steps were left out."""
    part = part_way(grid, keys.number("strength")) if "strength" in keys else grid
    return part, len(grid) - len(part)


def part_way_plan(plan: StepPlan, steps: int, strength: float) -> StepPlan:
    """Return the last part of a plan whose steps stand each for itself."""
    kept = steps_kept(steps, strength)
    if kept == steps:
        return plan
    solver = SOLVERS[str(plan.meta["solver"])]
    rows = one_step_entries(plan, solver.most_calls, "starting part-way")
    return cut(plan, rows[steps - kept])
