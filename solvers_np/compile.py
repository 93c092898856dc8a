"""compile_plan: from the names of a solver, a schedule and a grid to a StepPlan."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from dpmrt.errors import OptionError, PlanError
from dpmrt.solvers_np.grids import GRIDS, Grid, make_grid
from dpmrt.solvers_np.options import accepted, check_types, choose, one_of, whole
from dpmrt.solvers_np.plan import StepPlan
from dpmrt.solvers_np.prediction import PREDICTIONS, perfect_output
from dpmrt.solvers_np.schedule import NoiseSchedule
from dpmrt.solvers_np.schedules import make_schedule
from dpmrt.solvers_np.solvers import SOLVERS

MAX_STEPS = 10_000


def compile_plan(
    solver: str,
    schedule: NoiseSchedule | str,
    steps: int,
    *,
    grid: str | Grid = "trailing",
    prediction: str = "epsilon",
    **options: Any,
) -> StepPlan:
    """Compile a sampler. `options` are the solver's and the grid's own; a name neither has is refused.

    >>> plan = compile_plan("dpmsolver++", "linear", 20, grid="karras", order=2)
    >>> plan.calls
    20
    """
    factory = choose("solver", solver, SOLVERS)
    one_of("prediction", prediction, PREDICTIONS)
    steps = whole("steps", steps, 1, MAX_STEPS)
    schedule = make_schedule(schedule) if isinstance(schedule, str) else schedule
    solver_names = accepted(factory)
    if isinstance(grid, Grid):
        grid_name, grid_names = "given", []
        if len(grid) != steps:
            raise OptionError(
                "steps and the grid disagree", got=f"steps={steps}", expected=f"{len(grid)}, as the grid"
            )
    else:
        grid_name, grid_names = grid, accepted(choose("grid", grid, GRIDS))
    for name in options:
        if name not in solver_names and name not in grid_names:
            near = difflib.get_close_matches(name, [*solver_names, *grid_names], n=1)
            raise OptionError(
                f"neither solver {solver!r} nor grid {grid_name!r} has an option of this name",
                got=repr(name),
                expected=", ".join([*solver_names, *grid_names]),
                fix=f"did you mean {near[0]!r}?" if near else None,
            )
    if not isinstance(grid, Grid):
        grid = make_grid(grid, schedule, steps, **{k: v for k, v in options.items() if k in grid_names})
    chosen = {k: v for k, v in options.items() if k in solver_names}
    check_types(f"solver {solver!r}", factory, chosen)
    plan = factory(grid, prediction, **chosen)
    reproduces(plan, 1.0 if plan.calls > len(grid) else float(grid.alpha_next[-1]), prediction)
    meta = {
        **plan.meta,
        "solver": solver,
        "schedule": schedule.name,
        "grid": grid_name,
        "steps": steps,
        "prediction": prediction,
        "options": {k: v for k, v in options.items() if isinstance(v, (int, float, str))},
    }
    return dataclasses.replace(plan, meta=meta)


def reproduces(plan: StepPlan, end: float, prediction: str, tolerance: float = 1e-9) -> None:
    """Refuse a plan that does not lead to `end` when the network knows x0 = 1 and the noise is zero.

    It is the one identity that the weights of every solver fulfil, so a slip in a formula shows here.
    """
    state, slots = float(plan.alpha[plan.out >= 0][0]), [0.0] * plan.slots
    for row in range(plan.rows):
        out, slot = int(plan.out[row]), int(plan.quantity[row])
        if out >= 0:
            slots[out] = perfect_output(prediction, float(plan.sigma[row]))
            slots[slot] = float(plan.convert[row, 0]) * state + float(plan.convert[row, 1]) * slots[out]
            slots[slot] = float(plan.restore[row, 0]) * state + float(plan.restore[row, 1]) * slots[slot]
        if plan.keep[row] >= 0:
            slots[int(plan.keep[row])] = state
        state = float(plan.weights[row, 0]) * state + sum(float(w) * q for w, q in zip(plan.weights[row, 1:], slots))
    if not abs(state - end) <= tolerance:
        raise PlanError(
            "the plan does not reproduce a perfectly known sample",
            got=f"x = {state!r} at the end",
            expected=end,
            fix="this is a defect of the solver; please report the call that led here",
        )
