"""Solvers held against each other on one network: how far each is from the exact solution, for how many calls."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.runtime.pipeline import Pipeline
from dpmrt.solvers_np import StepEvent, StepPlan

#: compared unless others are named
USUAL = ("ddim", "euler-ancestral", "heun", "lms", "PLMS", "deis", "dpmsolver++", "unipc")
#: what stands for the exact solution
REFERENCE = ("dpmsolver++", {"order": 2, "lower_order_final": False})


@dataclasses.dataclass(frozen=True)
class Entry:
    """A solver with its options, under a name for table and picture."""

    name: str
    solver: str | None
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Point:
    """One run: the calls it took, its distance from the reference (NaN where noise is added), samples and time."""

    calls: int
    error: float
    seconds: float
    samples: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Curve:
    """All runs of one solver."""

    name: str
    stochastic: bool
    points: tuple[Point, ...]


def fitting_plan(make: Callable[[int], StepPlan], calls: int) -> StepPlan | None:
    """Return the plan with the most steps that asks the network at most `calls` times, or None if there is none."""
    for steps in _descending(make, calls):
        try:
            plan = make(steps)
        except OptionError:
            continue
        if plan.calls <= calls:
            return plan
    return None


def _descending(make: Callable[[int], StepPlan], calls: int) -> Iterable[int]:
    """Return numbers of steps to try, from one more than two plans' calls suggest."""
    try:
        few, many = make(8).calls, make(16).calls
    except OptionError:
        return range(calls, 0, -1)
    likely = 8 + math.floor((calls - few) * 8 / max(many - few, 1)) + 1
    return range(max(1, min(likely, calls)), 0, -1)


def compare_solvers(
    pipeline: Pipeline,
    entries: Sequence[Entry],
    calls: Sequence[int],
    *,
    reference: int,
    request: Mapping[str, Any],
    callback: Callable[[StepEvent], object] | None = None,
) -> list[Curve]:
    """Sample with each solver and each number of calls, from the same noise; `request` goes to `Pipeline.sample`."""
    plans = [(entry, [_plan(pipeline, entry, budget) for budget in calls]) for entry in entries]
    exact_plan = pipeline.plan(reference, REFERENCE[0], **REFERENCE[1])

    def run(plan: StepPlan) -> tuple[NDArray[np.float32], float]:
        started = time.perf_counter()
        samples = pipeline.sample(plan=plan, callback=callback, **request)
        return samples, time.perf_counter() - started

    exact, _ = run(exact_plan)
    scale = float(np.sqrt((exact.astype(np.float64) ** 2).mean()))
    curves = []
    for entry, made in plans:
        points = []
        for plan in made:
            samples, seconds = run(plan)
            off = float(np.sqrt(((samples.astype(np.float64) - exact) ** 2).mean())) / scale
            points.append(Point(plan.calls, float("nan") if plan.stochastic else off, seconds, samples))
        curves.append(Curve(entry.name, made[0].stochastic, tuple(points)))
    return curves


def total_calls(pipeline: Pipeline, entries: Sequence[Entry], calls: Sequence[int], reference: int) -> int:
    """Return how often the network will be asked, for a progress bar."""
    return reference + sum(_plan(pipeline, entry, budget).calls for entry in entries for budget in calls)


def _plan(pipeline: Pipeline, entry: Entry, calls: int) -> StepPlan:
    plan = fitting_plan(lambda steps: pipeline.plan(steps, entry.solver, **entry.options), calls)
    if plan is None:
        pipeline.plan(calls, entry.solver, **entry.options)  # says what is wrong with the request
        raise OptionError(
            f"{entry.name} has no plan of so few network calls",
            got=f"{calls} calls",
            expected="enough for one of its steps",
            fix="ask for more --calls, or leave this solver out",
        )
    return plan
