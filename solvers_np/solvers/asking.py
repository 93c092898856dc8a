"""One network call, read as x0 or as eps, with the limits that a solver puts on x0."""

from __future__ import annotations

from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.instructions import Instruction
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.prediction import to_eps, to_x0, x0_to_eps


def x0_at(rows: PlanWriter, prediction: str, level: Level, limit: Instruction | None = None) -> Mix:
    """Call the network and return its x0."""
    return rows.call(level, to_x0(prediction, level), instruction=limit)


def eps_at(rows: PlanWriter, prediction: str, level: Level, limit: Instruction | None = None) -> Mix:
    """Call the network and return its eps, that of the limited x0 where there is a limit."""
    if limit is None:
        return rows.call(level, to_eps(prediction, level))
    return rows.call(level, to_x0(prediction, level), instruction=limit, restore=x0_to_eps(level))


def x0_and_eps_at(rows: PlanWriter, prediction: str, level: Level) -> tuple[Mix, Mix]:
    """Call the network and return both, of its output as it is."""
    x, raw = rows.x, rows.call(level)
    x0, eps = (p * x + q * raw for p, q in (to_x0(prediction, level), to_eps(prediction, level)))
    return x0, eps
