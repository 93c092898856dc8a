"""Single steps of the predictors of Song et al. 2021 (score SDE, arXiv 2011.13456), from one level to the next.

All undo the forward chain x_here = r x_there + sqrt(g2) z between two levels, or the SDE that it comes from, with the
score at the first: SMLD's chain has r = 1 and g2 = sigma_i^2 - sigma_{i-1}^2, DDPM's r = sqrt(1 - beta_i) and
g2 = beta_i; of a continuous SDE it is the exact transition between the two times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level

#: how far alpha^2 + sigma^2 may be from 1 where the variance is called preserved
_UNIT = 1e-6


class Step(NamedTuple):
    """x_there = state * x_here + score * (score at here) + noise * z."""

    state: float
    score: float
    noise: float


def chain(here: Level, there: Level) -> tuple[float, float]:
    """Return r and g2 of the forward chain x_here = r x_there + sqrt(g2) z."""
    r = here.alpha / there.alpha
    return r, max(here.sigma**2 - (r * there.sigma) ** 2, 0.0)


def reverse_diffusion(grid: Grid, here: Level, there: Level, *, flow: bool = False) -> Step:
    """Step by x + (1 - r) x + g2 score + sqrt(g2) z; of the probability flow, half of the score and no noise.

    Onto no noise the flow, too, takes the whole score: half of it would leave noise behind.
    """
    r, g2 = chain(here, there)
    if flow:
        return Step(2 - r, g2 if there.sigma == 0 else g2 / 2, 0.0)
    return Step(2 - r, g2, math.sqrt(g2))


def ancestral(grid: Grid, here: Level, there: Level) -> Step:
    """Step to the mean of x_there given x_here, which is (x + g2 score) / r, with the noise of its paper.

    Where the variance is preserved that is DDPM's beta, g2; elsewhere, as in SMLD's ancestral sampling, the variance
    that x_there has given x_here and x0.
    """
    r, g2 = chain(here, there)
    if r == 0:
        raise OptionError(
            "ancestral sampling cannot step from where no signal is left",
            got=f"alpha = 0 at t = {here.t:g}",
            expected="a grid that starts with some signal",
            fix="use predictor='reverse-diffusion', or a schedule without zero_snr",
        )
    return Step(1 / r, g2 / r, math.sqrt(g2) * (1.0 if _preserved(grid) else there.sigma / here.sigma))


def _preserved(grid: Grid) -> bool:
    start = grid.start
    unit = abs(start.alpha**2 + start.sigma**2 - 1) < _UNIT
    return bool(unit.all() and (start.alpha < 1).all())


def euler_maruyama(grid: Grid, here: Level, there: Level, *, flow: bool = False) -> Step:
    """Step by -(drift x - diffusion score) du + sqrt(diffusion du) z, with the SDE's rates at the first level.

    Onto no noise there is no time to step to, and the step is reverse diffusion's.
    """
    if there.sigma == 0:
        return reverse_diffusion(grid, here, there, flow=flow)
    if grid.schedule is None:
        raise OptionError(
            "Euler-Maruyama steps through the time of an SDE, and the grid does not know it",
            got="a grid without its schedule",
            expected="a named grid, or Grid(..., schedule=schedule)",
            fix="use predictor='reverse-diffusion', which needs the levels alone",
        )
    clock, drift, diffusion = (float(rate) for rate in grid.schedule.rates(here.t))
    du = clock - float(grid.schedule.rates(there.t).clock)
    if not math.isfinite(drift) or not math.isfinite(diffusion):
        raise OptionError(
            "the SDE has no finite rate at a time of the grid",
            got=f"drift {drift:g}, diffusion {diffusion:g} at t = {here.t:g}",
            expected="a grid that starts with some signal",
            fix="use predictor='reverse-diffusion', or pass t_start below the last time",
        )
    score = diffusion * du / 2 if flow else diffusion * du
    return Step(1 - drift * du, score, 0.0 if flow else math.sqrt(diffusion * du))


PREDICTORS: Mapping[str, Callable[..., Step]] = MappingProxyType(
    {"reverse-diffusion": reverse_diffusion, "euler-maruyama": euler_maruyama, "ancestral": ancestral}
)
#: those that follow the probability flow when asked to
FLOWS = ("reverse-diffusion", "euler-maruyama")
