"""Steps over the noise-to-signal ratio sigma / alpha, the variable of EDM (Karras et al. 2022) and of k-diffusion.

With x = alpha x_bar, x_bar falls with the ratio by d x_bar / d ratio = eps, on every schedule. Where alpha is 1 the
ratio is sigma, and the formulas are those that EDM and k-diffusion write.
"""

from __future__ import annotations

import math

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.options import within
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.solvers.rising import refuse_rising


def along(x: Mix, eps: Mix, here: Level, there: Level) -> Mix:
    """Return the state moved along a slope d x_bar / d ratio = eps."""
    return there.alpha / here.alpha * x + there.alpha * (there.ratio - here.ratio) * eps


def towards(x: Mix, x0: Mix, here: Level, there: Level) -> Mix:
    """Return the state moved towards an x0 that is held: its noise shrinks as the ratio does."""
    left = there.ratio / here.ratio
    return left * there.alpha / here.alpha * x + there.alpha * (1.0 - left) * x0


def middle(grid: Grid, here: Level, there: Level) -> Level:
    """Return the level halfway in lambda: the geometric mean of two ratios."""
    return grid.level((here.lambda_ + there.lambda_) / 2)


def lowest_ratio(grid: Grid) -> float:
    """Return the lowest ratio of noise at which the grid lets the network be called."""
    return grid.last.ratio if grid.last.sigma else float(grid.start.ratio[-1])


def check_ends(grid: Grid, solver: str) -> None:
    """Refuse a grid whose ratio is not known at every call."""
    first = next(iter(grid.start))
    if first.alpha == 0 or grid.last.alpha == 0:
        raise OptionError(
            f"solver {solver!r} steps in noise over signal, which is infinite where no signal is left",
            got=f"alpha = 0 at the {'first' if first.alpha == 0 else 'last'} time",
            expected="alpha > 0",
            fix="use solver 'ddim', which takes Euler's steps from there too, or a grid that starts later",
        )
    if first.sigma == 0:
        raise OptionError(
            f"solver {solver!r} cannot start where there is no noise",
            got="sigma = 0 at the first time",
            expected="a first time with sigma > 0",
        )


def check_noise(grid: Grid, solver: str, *, eta: float = 1.0, s_noise: float) -> None:
    """Refuse amounts of noise that no step can add."""
    within("eta", eta, 0, 1, "0 (no noise) to 1")
    if s_noise < 0:
        raise OptionError("s_noise is out of range", got=s_noise, expected="0 or more, 1 as a rule")
    if eta:
        refuse_rising(grid, f"steps of {solver!r} that add noise", got=f"eta={eta:g}", expected="eta=0")


def ancestral(here: Level, there: Level, eta: float) -> tuple[Level, float]:
    """Return the level below `there` to step down to, and the deviation of the noise that leads back up.

    With eta = 1 that noise makes the step one of the reverse diffusion, as DDPM's is; with 0 there is none.
    """
    if not eta or not there.sigma:
        return there, 0.0
    shrunk = there.ratio / here.ratio
    down = there.sigma * math.sqrt((1 - eta**2) + (eta * shrunk) ** 2)
    up = there.sigma * eta * math.sqrt(max((1 - shrunk) * (1 + shrunk), 0.0))
    return there._replace(t=math.nan, sigma=down), up
