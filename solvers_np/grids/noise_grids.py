"""Grids made of noise levels: the ladders between a schedule's ends, the AYS tables, and the user's own.

A level is the noise-to-signal ratio sigma / alpha; for rectified flow it is sigma, as diffusers has it there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids import ladders
from dpmrt.solvers_np.grids.ays import ays_sigmas
from dpmrt.solvers_np.grids.finals import FINALS, level_count
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.grids.part_way import part_way
from dpmrt.solvers_np.levels import Floats, Level, Levels
from dpmrt.solvers_np.options import one_of
from dpmrt.solvers_np.schedules.flow import RectifiedFlow
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule

#: a table of rounded numbers may miss the end of the schedule that it was made for by this part
TABLE_ROUNDING = 1e-4
NO_NOISE = Level(float("nan"), 1.0, 0.0)


def karras(
    schedule: NoiseSchedule,
    steps: int,
    *,
    rho: float = 7.0,
    round_times: bool = False,
    final: str = "zero",
    strength: float = 1.0,
) -> Grid:
    """Space noise levels evenly in their rho-th root (Karras et al. 2022, eq. 5).

    With final="zero" the levels end at the schedule's lowest and one step more removes the rest of the noise.
    """
    high, low = _reach(schedule, "karras")
    return _grid(
        schedule, ladders.karras(high, low, level_count(steps, final), rho=rho), round_times, final, strength
    )


def exponential(
    schedule: NoiseSchedule, steps: int, *, round_times: bool = False, final: str = "zero", strength: float = 1.0
) -> Grid:
    """Space noise levels evenly in their logarithm."""
    high, low = _reach(schedule, "exponential")
    return _grid(schedule, ladders.exponential(high, low, level_count(steps, final)), round_times, final, strength)


def polyexponential(
    schedule: NoiseSchedule,
    steps: int,
    *,
    rho: float = 1.0,
    round_times: bool = False,
    final: str = "zero",
    strength: float = 1.0,
) -> Grid:
    """Let the logarithm of the noise level fall with the rho-th power of what is left to go (k-diffusion)."""
    high, low = _reach(schedule, "polyexponential")
    values = ladders.polyexponential(high, low, level_count(steps, final), rho=rho)
    return _grid(schedule, values, round_times, final, strength)


def beta(
    schedule: NoiseSchedule,
    steps: int,
    *,
    alpha: float = 0.6,
    beta: float = 0.6,
    over: str = "sigma",
    round_times: bool = False,
    final: str = "zero",
    strength: float = 1.0,
) -> Grid:
    """Space by quantiles of a beta distribution (Lee et al. 2024, arXiv 2407.12173).

    The paper so spaces the times (over="time"), diffusers the noise levels (over="sigma").
    """
    one_of("over", over, ("sigma", "time"))
    count = level_count(steps, final)
    if over == "sigma":
        high, low = _reach(schedule, "beta")
        return _grid(schedule, ladders.beta(high, low, count, alpha=alpha, beta=beta), round_times, final, strength)
    times = schedule.t_min + (schedule.t_max - schedule.t_min) * ladders.beta_fractions(count, alpha, beta)
    times = _rounded(schedule, times) if round_times else times
    grid = Grid.at_times(schedule, times) if final == "zero" else Grid.through_times(schedule, times)
    return part_way(grid, strength)


def ays(
    schedule: NoiseSchedule,
    steps: int,
    *,
    model: str = "sd15",
    round_times: bool = False,
    final: str = "zero",
    strength: float = 1.0,
) -> Grid:
    """Take the levels of Align Your Steps, published for ten steps and interpolated to others.

    With final="zero" the last step, which the table ends at its lowest level, removes all noise.
    """
    one_of("final", final, FINALS)
    values, (high, low) = ays_sigmas(model, steps), _reach(schedule, "ays")
    inside = np.clip(values, low, high)
    if (np.abs(inside / values - 1) > TABLE_ROUNDING).any():
        raise OptionError(
            f"the table {model!r} reaches outside this schedule",
            got=f"{schedule.name!r}, from {high:.6g} down to {low:.6g}",
            expected=f"noise levels from {values[0]:.6g} down to {values[-1]:.6g}",
            fix="use the schedule of the model; for 'svd': make_schedule('edm', sigma_max=700.0)",
        )
    return _grid(schedule, inside[:-1] if final == "zero" else inside, round_times, final, strength)


def sigmas(
    schedule: NoiseSchedule,
    steps: int,
    *,
    sigmas: Sequence[float] = (),
    round_times: bool = False,
    strength: float = 1.0,
) -> Grid:
    """Start the steps at the user's own noise levels; one more, which may be 0, is where the last step ends."""
    values = np.array(sigmas, np.float64)
    if len(values) not in (steps, steps + 1):
        raise OptionError(
            "steps and sigmas disagree",
            got=f"steps={steps}, {len(values)} sigmas",
            expected="one a step, and, if it is not 0, the end of the last",
        )
    if len(values) == steps + 1 and values[-1] == 0:
        values = values[:-1]
    return _grid(schedule, values, round_times, "zero" if len(values) == steps else "sigma_min", strength)


def _reach(schedule: NoiseSchedule, grid: str) -> tuple[float, float]:
    ends = np.array([schedule.t_max, schedule.t_min])
    noise, signal = schedule.sigma(ends), schedule.alpha(ends)
    if isinstance(schedule, RectifiedFlow):
        return float(noise[0]), float(noise[1])
    if signal[0] == 0 or not np.isfinite(noise[0]):
        raise OptionError(f"grid {grid!r} needs some signal at the last training time", got="alpha = 0 there")
    high, low = noise / signal
    return float(high), float(low)


def _grid(schedule: NoiseSchedule, values: Floats, round_times: bool, final: str, strength: float) -> Grid:
    """Call the network at noise levels; the levels are theirs, also where times are rounded."""
    flow = isinstance(schedule, RectifiedFlow)
    if not ((values > 0) & (values <= (1 if flow else np.inf))).all():
        raise OptionError(
            "a noise level is out of range", got=values.tolist(), expected="0 < sigma" + (" <= 1" if flow else "")
        )
    with np.errstate(divide="ignore"):
        lambdas = (np.log1p(-values) if flow else 0.0) - np.log(values)
    t, *weights = np.array([schedule.level(lambda_) for lambda_ in lambdas.tolist()]).T
    columns = Levels.of(_rounded(schedule, t) if round_times else t, *weights)
    if final == "zero":
        return part_way(Grid(columns, columns.part(1).then(NO_NOISE), schedule=schedule), strength)
    return part_way(Grid(columns.part(0, -1), columns.part(1), schedule=schedule), strength)


def _rounded(schedule: NoiseSchedule, times: Floats) -> Floats:
    if schedule.train_steps is None:
        raise OptionError(
            "round_times needs a schedule with training steps",
            got=f"{schedule.name!r}, a {type(schedule).__name__}",
            fix="leave out round_times",
        )
    return times.round()
