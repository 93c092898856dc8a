"""Timing by a clock that stands still but for what is timed, and numbers that sum it up."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmrt.errors import OptionError
from dpmrt.runtime.bench.memory import held_by
from dpmrt.runtime.bench.summary import median, percentile, summarise
from dpmrt.runtime.bench.timer import Timing, measure

TIMES = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)


class Clock:
    """Moves by what is done, and by nothing else."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, *seconds: float) -> Callable[[], None]:
        given = iter(seconds)
        last = seconds[-1]

        def run() -> None:
            self.done.append(name)
            self.now += next(given, last)

        return run


def test_each_run_is_timed_by_itself() -> None:
    clock = Clock()
    timing = Timing(warm_up=0.0, duration=0.0, iterations=3)
    # The first is the one run that warms up.
    assert measure({"a": clock.work("a", 9.0, 1.0, 2.0, 4.0)}, timing, clock=clock) == {"a": [1.0, 2.0, 4.0]}


def test_warming_up_lasts_as_long_as_asked_and_is_not_counted() -> None:
    clock = Clock()
    times = measure({"a": clock.work("a", 1.0)}, Timing(2.5, 0.0, 2), clock=clock)
    assert (len(clock.done), times) == (3 + 2, {"a": [1.0, 1.0]})


def test_duration_and_iterations_must_both_be_reached() -> None:
    clock = Clock()
    assert len(measure({"a": clock.work("a", 1.0)}, Timing(0.0, 5.0, 2), clock=clock)["a"]) == 5
    assert len(measure({"a": clock.work("a", 1.0)}, Timing(0.0, 5.0, 8), clock=clock)["a"]) == 8


def test_functions_take_turns() -> None:
    clock = Clock()
    functions = {name: clock.work(name, seconds) for name, seconds in (("a", 1.0), ("b", 3.0))}
    times = measure(functions, Timing(0.0, 0.0, 2), clock=clock)
    assert (clock.done, times) == (["a", "b"] * 3, {"a": [1.0, 1.0], "b": [3.0, 3.0]})


def test_a_run_ends_when_the_device_is_done_and_begins_when_it_is_idle() -> None:
    clock = Clock()
    queued = 0.0

    def launch() -> None:
        nonlocal queued
        queued += 2.0

    def synchronise() -> None:
        nonlocal queued
        clock.now += queued
        queued = 0.0

    launch()  # what was asked for before is not a part of the first run
    times = measure({"a": launch}, Timing(0.0, 0.0, 2), synchronise=synchronise, clock=clock)
    assert times == {"a": [2.0, 2.0]}


def test_runs_can_be_averaged() -> None:
    clock = Clock()
    work = clock.work("a", 0.0, 0.0, 1.0, 3.0, 2.0, 6.0)
    assert measure({"a": work}, Timing(0.0, 0.0, 2, average=2), clock=clock) == {"a": [2.0, 4.0]}


def test_progress_rises_to_one_with_the_slower_of_the_two_limits() -> None:
    clock = Clock()
    told: list[float] = []
    measure({"a": clock.work("a", 1.0)}, Timing(0.0, 4.0, 2), clock=clock, tell=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert Timing(duration=0.0, iterations=4).fraction(1, 9.0) == 0.25


def test_what_is_timed_may_fail() -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure({"a": fail}, Timing(), clock=Clock())


@pytest.mark.parametrize(
    ("wrong", "texts"),
    [
        ({"warm_up": -0.1}, ["warmUp is out of range", "-0.1", "--warmUp 200"]),
        ({"duration": -1.0}, ["duration is out of range", "-1.0", "0 to 86400 seconds"]),
        ({"duration": math.nan}, ["duration is out of range", "nan"]),
        ({"duration": True}, ["duration is out of range", "True"]),
        ({"iterations": 0}, ["iterations is out of range", "--iterations 10"]),
        ({"average": 0}, ["avgRuns is out of range", "--avgRuns 1"]),
    ],
)
def test_limits_that_make_no_sense(wrong: dict[str, float], texts: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        Timing(**wrong)  # type: ignore[arg-type]
    for text in texts:
        assert text in str(caught.value)


@given(TIMES, st.floats(0, 100))
def test_percentiles_are_those_of_numpy(times: list[float], percent: float) -> None:
    assert percentile(sorted(times), percent) == pytest.approx(np.percentile(times, percent), rel=1e-9, abs=1e-9)


@given(TIMES)
def test_a_summary_is_in_order_and_within_bounds(times: list[float]) -> None:
    found = summarise(times)
    assert (found.runs, found.min, found.max) == (len(times), min(times), max(times))
    assert found.mean == pytest.approx(np.mean(times))
    assert found.min <= found.p50 <= found.p95 <= found.p99 <= found.max
    assert median(times) == found.p50 == pytest.approx(np.median(times))


def test_device_memory_is_that_of_one_process() -> None:
    assert held_by(12, "123, 5\n12, 7\n") == 7 * 2**20
    assert held_by(12, "123, 5\n") is None
    assert held_by(12, "12, [N/A]\n") is None
