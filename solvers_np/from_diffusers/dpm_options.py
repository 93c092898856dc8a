"""What the configs of DPM-Solver's classes share: algorithms, orders and their keys."""

from __future__ import annotations

from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.part_way import part_way_grid
from dpmrt.solvers_np.from_diffusers.solver_prediction import PREDICTION_KEYS
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solvers import SOLVERS
from dpmrt.solvers_np.solvers.dpm_multistep import FEW_STEPS

#: `third_order`, which is not diffusers', asks for another weight of the second derivative in order 3
SOLVER_KEYS: dict[str, Any] = {
    "solver_order": 2,
    **PREDICTION_KEYS,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "third_order": "diffusers",
}
FINAL_KEYS: dict[str, Any] = {"lower_order_final": True, "euler_at_final": False}
ALGORITHMS = ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++")
_OVER_EPS = ("dpmsolver", "sde-dpmsolver")


def integrates_x0(keys: SchedulerConfig) -> bool:
    """Return whether the algorithm buffers x0; the others are no solvers of a flow in diffusers."""
    return keys["algorithm_type"] not in _OVER_EPS


def multistep_plan(keys: SchedulerConfig, grid: Grid, prediction: str) -> StepPlan:
    """Return the plan of the multistep algorithm that the config names."""
    grid, skipped = part_way_grid(keys, grid)
    return SOLVERS[keys["algorithm_type"]](
        grid,
        prediction,
        lower_order_final=keys.flag("lower_order_final"),
        euler_at_final=keys.flag("euler_at_final"),
        lower_order_below=FEW_STEPS - skipped,
        **solver_options(keys, len(grid)),
    )


def solver_options(keys: SchedulerConfig, steps: int) -> dict[str, Any]:
    """Return the options of order, type and limits; an order beyond the steps is lowered, as diffusers lowers it."""
    order, third = keys.whole("solver_order", 1, 3), keys.choice("third_order", "diffusers", "released", "taylor")
    if order < 3 and third != "diffusers":
        raise OptionError(f"{keys.name}: third_order needs solver_order = 3", got=f"third_order = {third!r}")
    options = {"order": min(order, steps), "solver_type": keys.choice("solver_type", "midpoint", "heun")}
    if options["order"] == 3:
        options["third_order"] = third
    return {**options, **keys.limits()}


def refuse_order_3(keys: SchedulerConfig, *algorithms: str) -> None:
    """Refuse order 3 for algorithms for which diffusers has no formula."""
    if (
        keys.whole("solver_order", 1, 3) == 3
        and keys["algorithm_type"] in algorithms
        and keys["third_order"] == "diffusers"
    ):
        raise OptionError(
            f"{keys.name}: diffusers has no third order of {keys['algorithm_type']}",
            got="solver_order = 3",
            expected="1 or 2",
            fix="set solver_order=2, or third_order='taylor'",
        )


def refuse_end_at_zero(keys: SchedulerConfig) -> None:
    """Refuse dpmsolver and sde-dpmsolver with a final sigma of zero, as diffusers does."""
    if keys.choice("final_sigmas_type", "zero", "sigma_min") == "zero" and not integrates_x0(keys):
        raise OptionError(
            f"{keys.name}: {keys['algorithm_type']} does not end at zero noise in diffusers",
            got="final_sigmas_type = 'zero'",
            expected="'sigma_min'",
            fix="set final_sigmas_type='sigma_min', or algorithm_type='dpmsolver++'",
        )
