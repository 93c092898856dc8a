"""Plans in parts: where a plan may be entered, what its state holds there, and plans cut and joined."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpmrt.errors import PlanError
from dpmrt.solvers_np.plans.plan import COLUMNS, StepPlan
from dpmrt.solvers_np.prediction import Pair

_INDEXED = ("instruction", "noise_instruction")


def state_levels(plan: StepPlan) -> list[Pair | None]:
    """Return signal and noise (alpha, sigma) of the state before each row and, last, at the end.

    A row without a call does not say; what its state held is worked out from the level after it, unless it reads
    slots.

    >>> from dpmrt.solvers_np import compile_plan
    >>> state_levels(compile_plan("ddim", "linear", 2))[-1]
    (1.0, 0.0)
    """
    levels: list[Pair | None] = [(plan.end[0], plan.end[1])]
    for row in reversed(range(plan.rows)):
        called = plan.out[row] >= 0
        levels.append((float(plan.alpha[row]), float(plan.sigma[row])) if called else _before(plan, row, levels[-1]))
    return levels[::-1]


def _before(plan: StepPlan, row: int, after: Pair | None) -> Pair | None:
    kept = float(plan.weights[row, 0])
    if after is None or not kept or (plan.weights[row, 1:] != 0).any():
        return None
    left = after[1] ** 2 - float(plan.noise[row]) ** 2
    return (after[0] / kept, math.sqrt(max(left, 0.0)) / kept) if left > -1e-9 * after[1] ** 2 else None


def rises(plan: StepPlan) -> bool:
    """Return whether the noise of the state rises on the whole, as where data are encoded.

    >>> from dpmrt.solvers_np import compile_inverse, compile_plan
    >>> rises(compile_inverse("ddim", "linear", 4)), rises(compile_plan("ddim", "linear", 4))
    (True, False)
    """
    return plan.end[1] * plan.start[0] > plan.end[0] * plan.start[1]


def entries(plan: StepPlan) -> list[int]:
    """Return the rows from which a plan may be followed with nothing but the state: the steps of a one-step solver.

    >>> from dpmrt.solvers_np import compile_plan
    >>> entries(compile_plan("heun", "linear", 4)), entries(compile_plan("lms", "linear", 4))
    ([0, 2, 4, 6], [0])
    """
    found: list[int] = []
    live: set[int] = set()
    for row in reversed(range(plan.rows)):
        live |= {k for k in range(plan.slots) if plan.weights[row, 1 + k] != 0}
        live.discard(int(plan.keep[row]))
        if plan.out[row] >= 0:
            live -= {int(plan.quantity[row]), int(plan.out[row])}
        # a row without a call, as one that churns, belongs to the step that follows
        if not live and (row == 0 or plan.out[row - 1] >= 0):
            found.append(row)
    return found[::-1]


def one_step_entries(plan: StepPlan, calls: int, what: str) -> list[int]:
    """Return the rows at which steps begin, of a solver of at most so many calls a step that keeps nothing else."""
    rows = entries(plan)
    counts = [int((plan.out[a:b] >= 0).sum()) for a, b in zip(rows, [*rows[1:], plan.rows])]
    if max(counts) > calls:
        raise PlanError(
            f"{what} needs a solver that keeps nothing from earlier steps",
            got=f"solver {plan.meta.get('solver', 'of the plan')!r}, which keeps earlier outputs",
            expected="a solver of one step, as ddim, ddpm, euler-ancestral or heun",
            fix="choose another with solver=..., --solver",
        )
    return rows


def cut(plan: StepPlan, start: int, stop: int | None = None) -> StepPlan:
    """Return the rows from `start` up to `stop` as a plan; nothing before `start` may be read in them."""
    stop = plan.rows if stop is None else stop
    levels = state_levels(plan)
    first, last = levels[start], levels[stop]
    if first is None or last is None:
        raise PlanError("the plan does not say what its state holds there", got=f"rows {start} to {stop}")
    columns = {name: getattr(plan, name)[start:stop] for name, _, _ in COLUMNS}
    return dataclasses.replace(plan, **columns, start=first, end=last)


def joined(plans: Sequence[StepPlan], **meta: object) -> StepPlan:
    """Return plans that are followed one after the other, each from the level at which the one before ends.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("ddim", "linear", 4)
    >>> joined([cut(plan, 0, 1), cut(plan, 1)]).digest() == plan.digest()
    True
    """
    slots = max(plan.slots for plan in plans)
    instructions = list(dict.fromkeys(i for plan in plans for i in plan.instructions))
    columns: dict[str, Any] = {}
    for name, _, _ in COLUMNS:
        parts = [getattr(plan, name) for plan in plans]
        if name == "weights":
            parts = [np.pad(part, ((0, 0), (0, slots + 1 - part.shape[1]))) for part in parts]
        elif name in _INDEXED:
            places = [[*(instructions.index(i) for i in plan.instructions), -1] for plan in plans]
            parts = [np.array(place)[part] for place, part in zip(places, parts)]
        columns[name] = np.concatenate(parts)
    return dataclasses.replace(
        plans[0],
        **columns,
        instructions=tuple(instructions),
        end=plans[-1].end,
        parts=max(plan.parts for plan in plans),
        meta={**plans[0].meta, **meta},
    )


def raised(plan: StepPlan, low: Pair, high: Pair) -> StepPlan:
    """Return the plan of one row that leads from one level to one of more noise by adding noise."""
    kept = high[0] / low[0]
    shares = [level[1] ** 2 / (level[0] ** 2 + level[1] ** 2) for level in (low, high)]
    blank: dict[str, Any] = {name: np.zeros_like(getattr(plan, name)[:1]) for name, _, _ in COLUMNS}
    blank |= {name: np.full_like(blank[name], -1) for name in ("out", "keep", *_INDEXED)}
    blank["weights"][0, 0] = kept
    for name in ("convert", "restore"):
        blank[name][0, 1] = 1.0
    blank |= {"in_scale": np.ones(1), "span": np.array([shares])}
    blank["noise"] = np.array([math.sqrt(max(high[1] ** 2 - (kept * low[1]) ** 2, 0.0))])
    return dataclasses.replace(plan, **blank, start=low, end=high)
