"""The times at which the statistic is measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.runtime.request import brief, check_whole
from dpmrt.solvers_np import NoiseSchedule

#: how many times stand for a schedule in continuous time
_USUAL = 100


def choose_times(
    schedule: NoiseSchedule, steps: int | None = None, times: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Return every training time, `steps` of them from the first to the last, or `times`; rising.

    >>> from dpmrt.solvers_np import make_schedule
    >>> choose_times(make_schedule("linear"), 5)
    (0.0, 250.0, 500.0, 749.0, 999.0)
    """
    first, last = schedule.t_range
    whole = schedule.train_steps
    if times is not None and steps is not None:
        raise OptionError(
            "steps and times exclude each other", got=f"steps={steps}, and times", expected="one of them"
        )
    if times is not None:
        return _given(times, first, last, whole is not None)
    if steps is not None or whole is None:
        count = _USUAL if steps is None else check_whole("steps", steps, 2, whole)
        spaced = np.linspace(first, last, count)
        if whole is None:  # a network is asked neither where there is no noise nor where there is no signal
            there = (schedule.sigma(spaced) > 0) & (schedule.alpha(spaced) > 0)
            spaced = spaced if there.all() else np.linspace(first, last, count + 2)[1:-1]
        return tuple((np.rint(spaced) if whole else spaced).tolist())
    return tuple(np.arange(whole, dtype=np.float64).tolist())


def _given(times: Sequence[float], first: float, last: float, whole: bool) -> tuple[float, ...]:
    try:
        array = np.sort(np.asarray(times, np.float64), axis=-1)
    except (TypeError, ValueError):
        array = np.zeros(0)
    row = array.ndim == 1 and array.size > 0 and bool(np.isfinite(array).all())
    if not row or array[0] < first or array[-1] > last or (whole and (array != np.rint(array)).any()):
        raise OptionError(
            "times are no times of the network",
            got=brief(times),
            expected=f"{'whole ' * whole}numbers from {first:g} to {last:g}",
        )
    return tuple(np.unique(array).tolist())
