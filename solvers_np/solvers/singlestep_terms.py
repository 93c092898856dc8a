"""How a singlestep DPM-Solver weighs what the network said at the start of a step and inside it.

The solvers that write plans apply these weights to sums (`Mix`), the adaptive driver to arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.solvers.dpm_terms import Terms

Sum = TypeVar("Sum", Mix, NDArray[Any])

#: where the inner calls are unless told otherwise, as parts of the step in lambda, by order
INNER: tuple[tuple[float, ...], ...] = ((), (), (0.5,), (1 / 3, 2 / 3))


def stage_weights(terms: Terms, solver_type: str, ratios: Sequence[float]) -> tuple[float, ...]:
    """Return the weights of the quantity at the start of the step, and at each inner stage.

    `ratios` say where the inner stages are, as parts of the step; with none the step is of order 1.
    """
    inner = _differences(terms, solver_type, ratios)
    return terms.value - sum(inner), *inner


def moved(terms: Terms, solver_type: str, x: Sum, asked: Sequence[Sum], stages: Sequence[Level], there: Level) -> Sum:
    """Return the state `x` moved to `there` by what was asked at the stages, the first of which is its own."""
    first, *inner = stage_weights(terms, solver_type, stage_ratios(stages[: len(asked)], there))
    return sum((w * q for w, q in zip(inner, asked[1:])), terms.state * x + first * asked[0])


def stage_ratios(stages: Sequence[Level], there: Level) -> list[float]:
    """Return where the inner stages are, as parts of the step from the first of them to `there`."""
    start = stages[0].lambda_ if len(stages) > 1 else 0.0
    return [(stage.lambda_ - start) / (there.lambda_ - start) for stage in stages[1:]]


def _differences(terms: Terms, solver_type: str, ratios: Sequence[float]) -> tuple[float, ...]:
    """Return weights of (quantity at each inner stage minus that at the start)."""
    if not ratios:
        return ()
    if len(ratios) == 1:
        return ((0.5 * terms.value if solver_type == "midpoint" else terms.slope) / ratios[0],)
    r1, r2 = ratios
    if solver_type == "midpoint":
        return 0.0, terms.slope / r2
    # the slope and bend of the parabola through all three
    return (
        (terms.slope * r2 - 2 * terms.bend) / (r1 * (r2 - r1)),
        (2 * terms.bend - terms.slope * r1) / (r2 * (r2 - r1)),
    )
