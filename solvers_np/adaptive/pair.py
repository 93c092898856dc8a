"""One step by a pair of singlestep DPM-Solvers that share their network calls: the step, and what the lower lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.solvers.dpm_terms import Form, step_terms
from dpmrt.solvers_np.solvers.singlestep_terms import INNER, moved, stage_ratios, stage_weights

Array = NDArray[Any]
Ask = Callable[[Array, Level], Array]


class Attempt(NamedTuple):
    """A step tried: the higher order's state, what the lower order's differs by, what was asked where it starts.

    There is no `difference` for order 1, which has no lower one.
    """

    state: Array
    difference: Array | None
    first: Array


def attempt_step(
    form: Form,
    ask: Ask,
    level_at: Callable[[float], Level],
    x: Array,
    here: Level,
    there: Level,
    order: int,
    solver_type: str,
    first: Array | None,
) -> Attempt:
    """Step from `here` to `there`; `first` is what the network said at the start, if it was asked before."""
    h = there.lambda_ - here.lambda_
    stages = [here, *(level_at(here.lambda_ + r * h) for r in INNER[order])]
    asked = [ask(x, here) if first is None else first]
    for stage in stages[1:]:
        # inside a step the slope counts with its own weight, whatever the solver's type
        asked.append(ask(moved(step_terms(form, here, stage), "heun", x, asked, stages, stage), stage))
    terms = step_terms(form, here, there)
    state = moved(terms, solver_type, x, asked, stages, there)
    if order == 1:
        return Attempt(state, None, asked[0])
    # of the weights, not of the states: in float32 these would leave rounding alone where the step is short
    ratios = stage_ratios(stages, there)
    higher, lower = (stage_weights(terms, solver_type, some) for some in (ratios, ratios[:-1]))
    parts = [(w - v) * q for w, v, q in zip(higher, (*lower, 0.0), asked)]
    return Attempt(state, sum(parts[1:], parts[0]), asked[0])
