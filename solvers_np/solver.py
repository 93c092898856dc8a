"""Solver: the function that writes a plan, and what tests and documentation say about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dpmrt.solvers_np.plans.plan import StepPlan


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to run a solver, and the order at which its error falls then.

    `starts_at` is the order of its first step where it is lower: such a solver shows its order on grids whose first
    steps are small.
    """

    options: Mapping[str, Any]
    order: float
    starts_at: float | None = None


@dataclasses.dataclass(frozen=True)
class Solver:
    """`make(grid, prediction, *, options)` returns the plan; `cases` are written once for tests, table and timing.

    `calls` says how often the network is asked in a step, `noise` whether noise is added ("no", "yes", or the option
    that adds it), `exact` whether a network that knows x0 is led to exactly x0, `usual_grid` what a run in continuous
    time has if no grid is named.
    """

    make: Callable[..., StepPlan]
    paper: str
    cases: tuple[Case, ...]
    calls: str = "1"
    noise: str = "no"
    diffusers: tuple[str, ...] = ()
    exact: bool = True
    usual_grid: tuple[str, Mapping[str, Any]] | None = None

    @property
    def most_calls(self) -> int:
        """Return how often a step asks the network at most, where steps keep nothing from each other."""
        return int(self.calls) if self.calls.isdigit() else 3

    def __call__(self, *args: Any, **options: Any) -> StepPlan:
        """Write the plan."""
        return self.make(*args, **options)
