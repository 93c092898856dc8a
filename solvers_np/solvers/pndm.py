"""PNDM, Liu et al. 2022: pseudo Runge-Kutta steps, then pseudo linear multistep (PLMS), with DDIM's transfer.

Both weigh eps as if the steps were even, and move along it as DDIM does, which makes the methods of order 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.instructions import Instruction
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.prediction import to_eps
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.adams import adams_bashforth
from dpmrt.solvers_np.solvers.asking import eps_at
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.ratio import along, check_ends, middle

#: steps that the Runge-Kutta start takes; with their first values the multistep has four
PRK_STEPS = 3
MOST_PAST = 4
_SIMPSON = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class Stage(NamedTuple):
    """One call: the level at which the network is asked, and the move of the step's first state, from where to where.

    The level asked is that of the state on even grids; on others diffusers lets them differ.
    """

    asked: Level
    here: Level
    there: Level


def pndm(
    grid: Grid,
    prediction: str,
    *,
    skip_prk_steps: bool = False,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Take three Runge-Kutta steps of four calls, then steps of one call over four values.

    With `skip_prk_steps` (PLMS) the first step is Heun's, of two calls, and the order rises from there. The middle of
    a step is that of its lambdas.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("pndm", "scaled_linear", 20)
    >>> plan.calls, compile_plan("pndm", "scaled_linear", 20, skip_prk_steps=True).calls
    (29, 21)
    """
    check_ends(grid, "pndm")
    if not skip_prk_steps and len(grid) <= PRK_STEPS:
        raise OptionError(
            "the Runge-Kutta start takes three steps, and one more has to follow",
            got=f"steps={len(grid)}",
            expected="at least 4",
            fix="ask for more steps, or pass skip_prk_steps=True",
        )
    limit = limit_x0(clip, threshold, threshold_max)
    intervals = list(grid)
    steps = [[Stage(here, here, there)] for here, there in intervals]
    if not skip_prk_steps:
        steps[:PRK_STEPS] = [_runge_kutta(grid, here, there) for here, there in intervals[:PRK_STEPS]]
    elif len(grid) > 1:
        steps[0] = [steps[0][0], steps[0][0]._replace(asked=intervals[1][0])]
    return pseudo(grid, prediction, steps, limit=limit)


def pseudo(
    grid: Grid,
    prediction: str,
    steps: Sequence[Sequence[Stage]],
    *,
    combine_outputs: bool = False,
    limit: Instruction | None = None,
) -> StepPlan:
    """Write steps of four stages (Runge-Kutta), of two (Heun) or of one (multistep over the first values of each).

    What is combined is eps, or with `combine_outputs` the network's outputs, turned into eps afterwards.
    """
    rows, past = PlanWriter(grid), list[Mix]()
    for stages in steps:
        x, found = rows.x, list[Mix]()
        for stage in stages:
            asked = stage.asked
            found.append(rows.call(asked) if combine_outputs else eps_at(rows, prediction, asked, limit))
            if len(found) == 1:
                past = [found[0], *past][:MOST_PAST]
            moved = _combined(found, len(stages), past)
            if combine_outputs:
                p, q = to_eps(prediction, stage.here)
                moved = p * x + q * moved
            rows.move(along(x, moved, stage.here, stage.there))
    return rows.plan(order=2)


def multistep(past: Sequence[Mix]) -> Mix:
    """Return the average over the step ahead of the polynomial through values at even steps, the newest first."""
    weights = adams_bashforth([-float(k) for k in range(len(past))], 1.0)
    return sum((w * eps for w, eps in zip(weights, past)), Mix())


def _combined(found: Sequence[Mix], stages: int, past: Sequence[Mix]) -> Mix:
    if stages == 1:
        return multistep(past)
    if len(found) < stages:
        return found[-1]
    weights = _SIMPSON if stages == 4 else (0.5, 0.5)
    return sum((w * eps for w, eps in zip(weights, found)), Mix())


def _runge_kutta(grid: Grid, here: Level, there: Level) -> list[Stage]:
    if math.isnan(there.t):
        raise OptionError(
            "the Runge-Kutta start calls the network where its steps end, and there is no time for that",
            got="a step that ends without noise",
            expected="a grid that ends later",
            fix="pass skip_prk_steps=True",
        )
    half = middle(grid, here, there)
    return [Stage(here, here, half), Stage(half, here, half), Stage(half, here, there), Stage(there, here, there)]


PNDM = Solver(
    pndm,
    paper="Liu et al. 2022 (PNDM), eq. 9, 12 and 13, algorithm 2",
    cases=(Case({}, 2.0), Case({"skip_prk_steps": True}, 2.0)),
    calls="1 (4 in the first three; with skip_prk_steps 2 in the first)",
    diffusers=("PNDMScheduler",),
)
