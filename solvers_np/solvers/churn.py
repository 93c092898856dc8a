"""Churn: noise added before a step, which the step then removes (Karras et al. 2022, algorithm 2)."""

from __future__ import annotations

import dataclasses
import math

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import NO_LENGTH, Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solvers.rising import refuse_rising

#: no step raises the noise by more than this part of it
_MOST = math.sqrt(2) - 1
#: a level this near to a bound lies on it: the ends of ladders are powers of roots
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Churn:
    """How much noise is added over all steps, between which noise-to-signal ratios, and how much it is inflated."""

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float | None = None
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        for name in ("s_churn", "s_tmin", "s_noise"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} is out of range", got=getattr(self, name), expected="0 or more")
        if self.s_tmax is not None and self.s_tmax < self.s_tmin:
            raise OptionError(
                "s_tmin is above s_tmax, so that no step would churn",
                got=f"s_tmin={self.s_tmin:g}, s_tmax={self.s_tmax:g}",
                expected="s_tmin <= s_tmax",
            )

    def gamma(self, ratio: float, steps: float) -> float:
        """Return the part by which one of `steps` steps, which starts at `ratio`, raises its noise."""
        low, high = self.s_tmin * (1 - _ROUNDING), math.inf if self.s_tmax is None else self.s_tmax * (1 + _ROUNDING)
        return min(self.s_churn / steps, _MOST) if low <= ratio <= high else 0.0

    def check(self, grid: Grid) -> None:
        """Refuse to churn where the noise is to rise."""
        if self.s_churn:
            refuse_rising(grid, "churn", got=f"s_churn={self.s_churn:g}", expected="s_churn=0")

    def add(self, rows: PlanWriter, grid: Grid, here: Level) -> Level:
        """Add the noise of the step that starts `here`, in a row of its own; return the level of the state then.

        The noise never rises above that at which the grid starts, since the network may know no more.
        """
        gamma = self.gamma(here.ratio, len(grid))
        raised = min(here.ratio * (1.0 + gamma), float(grid.start.ratio[0])) if gamma else 0.0
        if raised <= here.ratio * (1.0 + NO_LENGTH):
            return here
        hat = grid.level(-math.log(raised))
        kept = hat.alpha / here.alpha
        std = math.sqrt(max(hat.sigma**2 - (kept * here.sigma) ** 2, 0.0))
        rows.move(kept * rows.x, noise=self.s_noise * std, over=(here, hat))
        return hat
