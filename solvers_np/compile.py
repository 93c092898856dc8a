"""compile_plan: from the names of a solver, a schedule and a grid to a StepPlan."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError, PlanError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.grids.named import GRIDS, make_grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.names import sampler_called, unknown_sampler
from dpmrt.solvers_np.options import accepted, check_types, choose, one_of, whole
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.prediction import PREDICTIONS, perfect_output
from dpmrt.solvers_np.schedules.named import make_schedule
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule
from dpmrt.solvers_np.solver import Solver
from dpmrt.solvers_np.solvers import SOLVERS

MAX_STEPS = 10_000


def compile_plan(
    solver: str,
    schedule: NoiseSchedule | str,
    steps: int,
    *,
    grid: str | Grid | None = None,
    prediction: str = "epsilon",
    **options: Any,
) -> StepPlan:
    """Compile a sampler. `options` are the solver's and the grid's own; a name neither has is refused.

    `solver` is a name of SOLVERS, or one that k-diffusion's users know. Such a name may settle options and the grid;
    what is given here goes first. Without a grid it is "trailing"; in continuous time the solver's own, or
    "logsnr", or, where no signal is left at the start, "uniform" down to no noise.

    >>> plan = compile_plan("DPM++ 2M Karras", "linear", 20)
    >>> plan.calls, plan.meta["solver"], plan.meta["grid"]
    (20, 'dpmsolver++', 'karras')
    """
    chosen = choose_sampler(solver, schedule, steps, grid=grid, prediction=prediction, options=options)
    return write_plan(chosen, chosen.grid, prediction)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A sampler, settled: the solver's name and its own options, the grid, and what the plan says of them."""

    solver: str
    schedule: NoiseSchedule
    grid: Grid
    options: Mapping[str, Any]
    meta: Mapping[str, Any]


def choose_sampler(
    solver: str,
    schedule: NoiseSchedule | str,
    steps: int,
    *,
    grid: str | Grid | None,
    prediction: str,
    options: Mapping[str, Any],
) -> Chosen:
    """Settle names and options, and make the grid."""
    if isinstance(solver, str) and solver not in SOLVERS and (known := sampler_called(solver)) is not None:
        solver, options = known.solver, {**known.options, **(known.grid_options if grid is None else {}), **options}
        grid = known.grid if grid is None else grid
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise unknown_sampler(solver, SOLVERS)
    one_of("prediction", prediction, PREDICTIONS)
    steps = whole("steps", steps, 1, MAX_STEPS)
    schedule = schedule if isinstance(schedule, NoiseSchedule) else make_schedule(schedule)
    if grid is None:
        grid, usual = _usual_grid(schedule, SOLVERS[solver])
        options = {**usual, **options}
    for_grid, for_solver = _split(solver, grid, options)
    name = grid if isinstance(grid, str) else "given"
    made = make_grid(grid, schedule, steps, **for_grid) if isinstance(grid, str) else grid
    if isinstance(grid, Grid) and len(grid) != steps:
        raise OptionError("steps and the grid disagree", got=f"steps={steps}", expected=f"{len(grid)}, as the grid")
    check_types(f"solver {solver!r}", SOLVERS[solver].make, for_solver)
    meta = {
        "solver": solver,
        "schedule": schedule.name,
        "grid": name,
        "steps": steps,
        "prediction": prediction,
        "options": {k: v for k, v in options.items() if v is None or isinstance(v, (int, float, str, list, tuple))},
    }
    return Chosen(solver, schedule, made, for_solver, meta)


def write_plan(chosen: Chosen, grid: Grid, prediction: str) -> StepPlan:
    """Write the plan of a sampler over a grid, and check it."""
    found = SOLVERS[chosen.solver]
    plan = found.make(grid, prediction, **chosen.options)
    if found.exact:
        reproduces(plan, prediction)
    return dataclasses.replace(plan, meta={**plan.meta, **chosen.meta})


def _usual_grid(schedule: NoiseSchedule, solver: Solver) -> tuple[str, Mapping[str, Any]]:
    if schedule.train_steps is not None:
        return "trailing", {}
    if solver.usual_grid is not None:
        return solver.usual_grid
    if schedule.alpha(schedule.t_max) > 0:
        return "logsnr", {}
    return "uniform", {"final": "zero"}


def _split(solver: str, grid: str | Grid, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the grid and those of the solver."""
    grid_names = accepted(choose("grid", grid, GRIDS)) if not isinstance(grid, Grid) else []
    solver_names, label = accepted(SOLVERS[solver].make), "given" if isinstance(grid, Grid) else grid
    for name in options:
        if name not in solver_names and name not in grid_names:
            near = difflib.get_close_matches(name, [*solver_names, *grid_names], n=1)
            raise OptionError(
                f"neither solver {solver!r} nor grid {label!r} has an option of this name",
                got=repr(name),
                expected=", ".join([*solver_names, *grid_names]),
                fix=f"did you mean {near[0]!r}?" if near else None,
            )
    for_grid = {k: v for k, v in options.items() if k in grid_names}
    return for_grid, {k: v for k, v in options.items() if k in solver_names}


def reproduces(plan: StepPlan, prediction: str, tolerance: float = 1e-9) -> None:
    """Refuse a plan that does not lead to its end when the network knows x0 = 1 and the noise is zero.

    It is the one identity that the weights of every solver fulfil, so a slip in a formula shows here.
    """
    # where next to no signal is left, weights are large and cancel: the rounding of one is multiplied by another
    largest = max(float(abs(plan.weights).max()), float(abs(plan.convert).max()))
    tolerance = max(tolerance, largest**2 * sys.float_info.epsilon)
    state, slots, end = plan.start[0], [0.0] * plan.slots, plan.end[0]
    for row in range(plan.rows):
        out, slot = int(plan.out[row]), int(plan.quantity[row])
        if out >= 0:
            columns = (plan.t, plan.alpha, plan.sigma, plan.in_scale)
            slots[out] = perfect_output(prediction, Level(*(float(column[row]) for column in columns)))
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
