"""Grid: where the network is called, and between which noise levels each step goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.levels import Floats, Level, Levels
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule

#: an interval whose noise falls by less than this part has no length: what is left is rounding
NO_LENGTH = 1e-10


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """`len(grid)` intervals, each from a level of `start` to the level of `end` beside it.

    The end of one is as a rule, but not always, the start of the next. The noise falls in each, or, for encoding,
    rises in each; only the last may have no length, as it has where diffusers repeats its lowest sigma.
    `between` gives the level at a lambda, for solvers that call the network inside a step; `schedule`, where there is
    one, also that at a time. Sampling from nothing starts at `init_scale` times unit noise: unless given, 1 where the
    state's variance is 1, else the first sigma.
    """

    start: Levels
    end: Levels
    between: Callable[[float], Level] | None = None
    init_scale: float = float("nan")
    schedule: NoiseSchedule | None = None

    def __post_init__(self) -> None:
        if len(self.start) < 1 or len(self.start) != len(self.end):
            raise OptionError(
                "a grid needs at least one interval, and an end for each start",
                got=f"{len(self.start)} starts, {len(self.end)} ends",
            )
        for name, column in (("start", self.start), ("end", self.end)):
            weights = np.stack([column.alpha, column.sigma, column.in_scale])
            if not (np.isfinite(weights) & (weights >= 0)).all():
                raise OptionError(f"a level of the grid ({name}) is negative, NaN or infinite")
        least = np.full(len(self), 1 + NO_LENGTH)
        least[-1] = 1 - NO_LENGTH
        here, there = self.start.sigma * self.end.alpha, self.end.sigma * self.start.alpha
        falls, rises = here > there * least, there > here * least
        if not falls.all() and not (rises.all() and here[0] < there[0]):
            step = int(np.flatnonzero(~falls)[0])
            raise OptionError(
                "the noise does not fall from step to step, so the grid has a step of no length",
                got=f"step {step} of {len(self)} at t = {self.t[step]:g}",
                expected="each noise level below the one before",
                fix="ask for fewer steps, or for another spacing",
            )
        if self.between is None and self.schedule is not None:
            object.__setattr__(self, "between", self.schedule.level)
        if np.isnan(self.init_scale):
            first = next(iter(self.start))
            unit = abs(first.alpha**2 + first.sigma**2 - 1) < 1e-6
            object.__setattr__(self, "init_scale", 1.0 if unit else first.sigma)

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[tuple[Level, Level]]:
        """Give the levels where each interval starts and ends."""
        return zip(self.start, self.end)

    @property
    def t(self) -> Floats:
        """Return the times at which the intervals start."""
        return self.start.t

    @property
    def last(self) -> Level:
        """Return the level at which the last interval ends."""
        return next(iter(self.end.part(-1)))

    @property
    def rises(self) -> bool:
        """Return whether the noise rises, as it does when a sample is encoded."""
        return bool(self.start.ratio[0] < self.end.ratio[0])

    def level(self, lambda_: float) -> Level:
        """Return the level at a lambda inside the grid."""
        if self.between is None:
            raise OptionError(
                "this solver calls the network between the grid's times, and the grid does not know them",
                got="a grid without its schedule",
                expected="a named grid, or Grid(..., schedule=schedule)",
            )
        return self.between(lambda_)

    @staticmethod
    def at_times(schedule: NoiseSchedule, times: Floats, final: str = "zero") -> Grid:
        """Start intervals at `times`; the last ends without noise ("zero") or at t_min ("sigma_min")."""
        start = _levels(schedule, np.asarray(times, np.float64))
        end = next(iter(_levels(schedule, np.array([schedule.t_min]))))
        last = Level(float("nan"), 1.0, 0.0) if final == "zero" else end
        return Grid(start, start.part(1).then(last), schedule=schedule)

    @staticmethod
    def through_times(schedule: NoiseSchedule, times: Floats) -> Grid:
        """Make intervals between consecutive `times`."""
        levels = _levels(schedule, np.asarray(times, np.float64))
        return Grid(levels.part(0, -1), levels.part(1), schedule=schedule)

    @staticmethod
    def at_ratios(
        ratios: Floats,
        times: Floats,
        last: float,
        *,
        t_last: float = float("nan"),
        exploding: bool = False,
        between: Callable[[float], Level] | None = None,
        init_scale: float = float("nan"),
    ) -> Grid:
        """Make intervals from noise-to-signal ratios, the last ending at ratio `last`, for a network trained on VP.

        The state has variance one, or, `exploding`, holds the data with weight one and is scaled for the network.
        """
        ratios, ends = np.asarray(ratios, np.float64), np.append(np.asarray(ratios, np.float64)[1:], last)
        after = np.append(np.asarray(times, np.float64)[1:], t_last)
        alpha, alpha_end = 1 / np.hypot(1, ratios), 1 / np.hypot(1, ends)
        if exploding:
            start, end = Levels.of(times, 1.0, ratios, alpha), Levels.of(after, 1.0, ends, alpha_end)
        else:
            start, end = Levels.of(times, alpha, ratios * alpha), Levels.of(after, alpha_end, ends * alpha_end)
        return Grid(start, end, between, init_scale)


def _levels(schedule: NoiseSchedule, times: Floats) -> Levels:
    return Levels.of(times, schedule.alpha(times), schedule.sigma(times), schedule.in_scale(times))
