"""How long the next step is and of which order: what the controller proposes, within what the calls can pay for."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.adaptive.options import AdaptiveOptions
from dpmrt.solvers_np.grids.grid import NO_LENGTH


class Move(NamedTuple):
    """A step to try. It is `last` if it ends the run, `forced` if it must be taken, `lowered` for this reason."""

    h: float
    order: int
    last: bool
    forced: bool
    lowered: str


class Pace:
    """The size and the order of the steps of one run."""

    def __init__(self, options: AdaptiveOptions, order: int, dtype: np.dtype[Any]) -> None:
        self._h = float(options.h_init)
        self._order = self._usual = order
        self._patience = options.patience
        self._finishes = options.on_budget == "finish"
        #: the shortest step that still makes a difference
        self._least = max(16 * float(np.finfo(dtype).eps), 10 * NO_LENGTH)
        self._rejected = self._steady = 0
        self._lowered = ""
        if self._h < self._least:
            raise OptionError(
                f"h_init is below what {dtype} resolves", got=self._h, expected=f"at least {self._least:.1e}"
            )

    def choose(self, remaining: float, calls: int) -> Move | Literal["budget", "underflow"]:
        """Return the next step, or what forbids one; `calls` counts the one already made where the step starts."""
        if self._finishes:
            return self._paid_for(remaining, calls)
        if self._h < min(self._least, remaining):
            if self._order == 2:
                return "underflow"
            self._lower("step size")
        h = self._within(remaining)
        order, lowered = self._order, self._lowered
        if calls < order:
            if calls < 2:
                return "budget"
            order, lowered = calls, "budget"
        return Move(h, order, h == remaining, False, lowered)

    def _within(self, remaining: float) -> float:
        """Return the proposed step, to the end where next to nothing would be left of the way."""
        h = max(self._h, self._least)
        return remaining if remaining - h < self._least else h

    def _paid_for(self, remaining: float, calls: int) -> Move:
        """Return a step no shorter than even ones would be, if all calls that are left were spent on them."""
        h, steps = self._within(remaining), -(-calls // self._order)
        if h > remaining / steps:
            return Move(h, self._order, h == remaining, False, self._lowered)
        order = -(-calls // steps)
        lowered = "budget" if order < self._order else self._lowered
        return Move(remaining / steps, order, steps == 1, True, lowered)

    def follow(self, move: Move, factor: float, outcome: str) -> None:
        """Take in what became of a step: the size of the next, and the order after many rejections."""
        self._h = move.h * factor if math.isfinite(factor) else math.inf
        if outcome == "rejected":
            self._rejected += 1
            if self._rejected >= self._patience:
                self._lower("rejections")
            return
        self._rejected = 0
        self._steady += 1
        if self._order < self._usual and self._steady >= self._patience:
            self._order, self._lowered = self._usual, ""

    def _lower(self, why: str) -> None:
        if self._order > 2:
            self._order, self._lowered, self._steady = 2, why, 0
