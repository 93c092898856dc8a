"""The scales of guidance of one request: one for each network call and each sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.runtime.guidance.asked import Guidance
from dpmrt.runtime.request import brief, check_array
from dpmrt.solvers_np.plans.parts import rises

if TYPE_CHECKING:
    from dpmrt.solvers_np import StepPlan

Floats = NDArray[np.float64]

#: the part of the way from 1 to the full scale, over progress
NAMED: Mapping[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1.0 - math.cos(math.pi * progress)) / 2.0,
}


@dataclass(frozen=True, eq=False)
class Scales:
    """Guidance that was checked; `base` holds the scale of each sample before interval and schedule.

    >>> from dpmrt.solvers_np import compile_plan
    >>> asked = Guidance(schedule="linear")
    >>> Scales(np.array([3.0, 5.0]), asked).table(compile_plan("ddim", "linear", 3)).tolist()
    [[1.0, 1.0], [2.0, 3.0], [3.0, 5.0]]
    """

    base: Floats
    asked: Guidance = field(default_factory=Guidance)

    @staticmethod
    def same(batch: int, scale: float) -> Scales:
        """Return one scale for all samples and calls."""
        return Scales(np.full(batch, float(scale)))

    @property
    def rescale(self) -> float:
        """Return how far deviations are brought back, 0 to 1."""
        return self.asked.rescale

    @property
    def varies(self) -> bool:
        """Return whether the scale may differ from one network call to another."""
        schedule = self.asked.schedule
        if schedule is None and self.asked.interval is None:
            return False
        return not (schedule is None or isinstance(schedule, str)) or bool((self.base != 1.0).any())

    @property
    def by_call(self) -> bool:
        """Return whether the schedule has a scale for each call, so that it serves plans of as many."""
        return _is_table(self.asked.schedule)

    @property
    def constant(self) -> float | None:
        """Return the scale where a plain one is all there is to do; 1 is no guidance."""
        first = float(self.base[0])
        if self.varies or (self.base != first).any() or (self.rescale and first != 1.0):
            return None
        return first

    def table(self, plan: StepPlan) -> Floats:
        """Return the scale at each network call of a plan, (calls, batch), or (1, batch) for the same at each.

        The calls of a plan whose noise rises count backwards, as those of the sampling that it undoes.
        """
        if not self.varies:
            return self.base[None]
        rows = plan.out >= 0
        t, ratio = plan.t[rows], _ratio(plan.alpha[rows], plan.sigma[rows])
        self._check_calls(plan.calls)
        call = np.arange(plan.calls)[:: -1 if rises(plan) else 1]
        progress = call / max(1, plan.calls - 1)
        return np.stack([self._row(int(k), *map(float, place)) for k, *place in zip(call, progress, t, ratio)])

    def at(self, t: float, alpha: float, sigma: float) -> Floats:
        """Return the scales at a time, (1, batch), where calls are not known beforehand; `check_free` allows it."""
        return self._row(0, math.nan, t, float(_ratio(np.array(alpha), np.array(sigma))))[None]

    def check_free(self) -> None:
        """Refuse what goes by the calls of a plan, for samplers that have none."""
        if not self.varies:
            return
        if isinstance(self.asked.schedule, str) or self.by_call or self.asked.unit == "progress":
            raise OptionError(
                "guidance goes by the progress of a plan, and this sampler follows none",
                got=f"unit={self.asked.unit!r}, schedule={brief(self.asked.schedule)}",
                expected="an interval or a function of unit='time' or unit='sigma'",
                fix="Guidance(3.0, interval=(200, 800), unit='time')",
            )

    def _row(self, call: int, progress: float, t: float, ratio: float) -> Floats:
        schedule, interval = self.asked.schedule, self.asked.interval
        place = {"progress": progress, "time": t, "sigma": ratio}[self.asked.unit]
        row = self.base
        if isinstance(schedule, str):
            row = 1.0 + (row - 1.0) * NAMED[schedule](progress)
        elif callable(schedule):
            row = self._told(schedule(place), place)
        elif schedule is not None:
            row = np.broadcast_to(np.asarray(schedule, np.float64)[call], self.base.shape)
        if interval is not None and not interval[0] <= place <= interval[1]:
            row = np.ones_like(self.base)
        return row

    def _told(self, value: object, place: float) -> Floats:
        array = check_array("the schedule of guidance", value)
        fits = array.dtype.kind in "fiu" and array.shape in ((), self.base.shape)
        if not fits or not np.isfinite(array).all():
            raise OptionError(
                "the schedule of guidance gave no scale",
                got=f"{brief(value)} at {place:g}",
                expected=f"a finite number, or {len(self.base)}, one for each sample",
            )
        return np.broadcast_to(array.astype(np.float64), self.base.shape)

    def _check_calls(self, calls: int) -> None:
        schedule: Any = self.asked.schedule
        if self.by_call and len(schedule) != calls:
            raise OptionError(
                "the schedule of guidance has another number of network calls than the plan",
                got=f"{len(schedule)} scales",
                expected=f"{calls}, as the plan calls the network",
                fix="give one scale for each call, or a function of the progress",
            )


def _is_table(schedule: object) -> bool:
    return schedule is not None and not isinstance(schedule, str) and not callable(schedule)


def _ratio(alpha: Floats, sigma: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(sigma / alpha)
