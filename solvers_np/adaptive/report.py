"""What an adaptive run did: every step that it tried, with its error, its order and what became of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: what becomes of a step; one that is forced was taken, though its error was too large or not known
OUTCOMES = ("accepted", "rejected", "forced")


class Trial(NamedTuple):
    """A step that was tried: where it started, its length in lambda, and `calls` made in all when it was done.

    `error` is NaN for order 1, which estimates none. `lowered` says why the order is below the solver's.
    """

    t: float
    lambda_: float
    h: float
    order: int
    error: float
    outcome: str
    calls: int
    lowered: str


@dataclasses.dataclass(frozen=True, eq=False)
class AdaptiveReport:
    """The history of a run. Its arrays have an entry for each step tried.

    `t_reached` is where the state is; `complete` whether that is the end. `calls` counts network calls, that for
    `denoise_to_zero` among them.
    """

    solver: str
    options: Mapping[str, Any]
    dtype: str
    t_start: float
    t_end: float
    t_reached: float
    complete: bool
    calls: int
    trials: tuple[Trial, ...]

    @property
    def t(self) -> NDArray[np.float64]:
        """Return the time at which each step starts."""
        return self._column("t", np.float64)

    @property
    def lambda_(self) -> NDArray[np.float64]:
        """Return log(alpha / sigma) where each step starts."""
        return self._column("lambda_", np.float64)

    @property
    def h(self) -> NDArray[np.float64]:
        """Return the length of each step in lambda, below zero where the noise rises."""
        return self._column("h", np.float64)

    @property
    def order(self) -> NDArray[np.int64]:
        """Return the order of each step."""
        return self._column("order", np.int64)

    @property
    def error(self) -> NDArray[np.float64]:
        """Return the error of each step, relative to the tolerance; NaN where it is not known."""
        return self._column("error", np.float64)

    @property
    def outcome(self) -> NDArray[np.str_]:
        """Return what became of each step, one of OUTCOMES."""
        return self._column("outcome", np.str_)

    @property
    def kept(self) -> bool:
        """Return whether the run came to its end with every step within the tolerance."""
        return self.complete and not self.count("forced")

    def count(self, outcome: str) -> int:
        """Return how many steps had this outcome."""
        return sum(trial.outcome == outcome for trial in self.trials)

    def _column(self, name: str, dtype: Any) -> NDArray[Any]:
        return np.array([getattr(trial, name) for trial in self.trials], dtype=dtype)

    def summary(self) -> str:
        """Return the run in a line."""
        counts = ", ".join(f"{self.count(o)} {o}" for o in OUTCOMES if o != "forced" or self.count(o))
        end = "" if self.complete else f", stopped at t = {self.t_reached:g}"
        return f"{self.solver}: {self.calls} network calls, {counts}{end}"

    def table(self) -> str:
        """Return every step as a line of text, under a line that sums up the run."""
        head = ("t", "lambda", "h", "order", "error", "calls", "outcome")
        rows = [
            (
                f"{trial.t:.4g}",
                f"{trial.lambda_:.4f}",
                f"{trial.h:.4g}",
                str(trial.order),
                "-" if math.isnan(trial.error) else f"{trial.error:.3g}",
                str(trial.calls),
                trial.outcome + (f" (order lowered: {trial.lowered})" if trial.lowered else ""),
            )
            for trial in self.trials
        ]
        return "\n".join([self.summary(), *_aligned([head, *rows])])

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain numbers, lists and texts; an error that is not known is None."""
        head = {f.name: getattr(self, f.name) for f in dataclasses.fields(AdaptiveReport)}
        counts = {outcome: self.count(outcome) for outcome in OUTCOMES}
        trials = [{name: _plain(value) for name, value in trial._asdict().items()} for trial in self.trials]
        return {**head, "options": dict(self.options), **counts, "trials": trials}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    numbers = [[cell.rjust(width) for cell, width in zip(row[:-1], widths)] for row in rows]
    return ["  ".join([*cells, row[-1]]) for cells, row in zip(numbers, rows)]
