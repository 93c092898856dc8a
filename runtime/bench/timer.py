"""How long functions take: run in turn, first to warm up, then until there are enough runs and time has passed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from dpmrt.errors import OptionError
from dpmrt.runtime.request import brief, check_whole

Clock: TypeAlias = Callable[[], float]
Tell: TypeAlias = Callable[[float], object]

_MOST_SECONDS = 86_400.0
_MOST_RUNS = 10_000_000


@dataclass(frozen=True)
class Timing:
    """When to stop, in trtexec's terms; all times are in seconds.

    Nothing is measured for `warm_up`; then at least `iterations` runs are, for at least `duration`. Each measured
    time is the mean of `average` runs one after another.

    >>> Timing(duration=0.0, iterations=5).enough(5, 0.0)
    True
    """

    warm_up: float = 0.2
    duration: float = 3.0
    iterations: int = 10
    average: int = 1

    def __post_init__(self) -> None:
        _seconds("warmUp", self.warm_up, "--warmUp 200, in milliseconds (warm_up=0.2, in seconds, in Python)")
        _seconds("duration", self.duration, "--duration 3 (duration=3.0 in Python)")
        check_whole("iterations", self.iterations, 1, _MOST_RUNS, fix="--iterations 10")
        check_whole("avgRuns", self.average, 1, _MOST_RUNS, fix="--avgRuns 1")

    def enough(self, runs: int, elapsed: float) -> bool:
        """Return whether so many runs in so many seconds will do."""
        return runs >= self.iterations and elapsed >= self.duration

    def fraction(self, runs: int, elapsed: float) -> float:
        """Return how much of a measurement is done, for a progress bar."""
        timed = 1.0 if self.duration == 0 else elapsed / self.duration
        return min(1.0, timed, runs / self.iterations)


def measure(
    functions: Mapping[str, Callable[[], object]],
    timing: Timing,
    *,
    synchronise: Callable[[], object] | None = None,
    clock: Clock = time.perf_counter,
    tell: Tell | None = None,
) -> dict[str, list[float]]:
    """Return the seconds that each function took, run by run; they take turns, so that a slow moment meets all.

    `synchronise` waits for a device's stream: it is called before the clock is read, at both ends of a run.

    >>> times = measure({"sum": lambda: sum(range(10))}, Timing(warm_up=0.0, duration=0.0, iterations=3))
    >>> len(times["sum"])
    3
    """
    wait = synchronise or (lambda: None)

    def timed(function: Callable[[], object]) -> float:
        wait()
        start = clock()
        for _ in range(timing.average):
            function()
        wait()
        return (clock() - start) / timing.average

    begun = clock()
    while True:
        # What is done once only, as an allocation, is done here even where there is no time for warming up.
        for function in functions.values():
            timed(function)
        if clock() - begun >= timing.warm_up:
            break
    times: dict[str, list[float]] = {name: [] for name in functions}
    begun, runs = clock(), 0
    while not timing.enough(runs, clock() - begun):
        for name, function in functions.items():
            times[name].append(timed(function))
        runs += 1
        if tell is not None:
            tell(timing.fraction(runs, clock() - begun))
    return times


def _seconds(name: str, value: object, fix: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 0 <= value <= _MOST_SECONDS:  # type: ignore[operator]
        raise OptionError(
            f"{name} is out of range", got=brief(value), expected=f"0 to {_MOST_SECONDS:g} seconds", fix=fix
        )
