"""Driver `ode`: the probability-flow ODE, followed by SciPy's adaptive solvers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import DivergedError
from dpmrt.runtime.drivers.base import Driven
from dpmrt.runtime.drivers.model import NetworkModel
from dpmrt.runtime.ode.course import Course, flow_between, follow, refuse_whole_times
from dpmrt.runtime.ode.field import level_at, unit_scale
from dpmrt.solvers_np import Callback, Level, NoiseSource, StepEvent
from dpmrt.solvers_np.execution.events import tell
from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.options import call_with_options
from dpmrt.solvers_np.prediction import to_x0


def sample_ode(
    model: NetworkModel,
    x_T: NDArray[Any],
    *,
    noise: NoiseSource,
    callback: Callback | None = None,
    **options: Any,
) -> Driven:
    """Sample along the probability-flow ODE (Song et al. 2021) from unit noise `x_T`; no noise is added on the way.

    `method` is one of SciPy's: RK45, RK23, DOP853, Radau, BDF or LSODA; a step's error is kept below
    `atol + rtol * |state|`. `variable` is what is integrated over: "lambda", "sigma" or "t" (`runtime/ode/field.py`).
    It ends at the time `end`, by default the schedule's lowest, and, with `denoise`, at x0 of the state there. The
    network is called `max_calls` times at most.

    >>> from dpmrt.runtime import load
    >>> with load("digits") as pipeline:
    ...     driven = pipeline.drive(2, solver="ode", rtol=1e-2, atol=1e-2)
    >>> driven.report.status, driven.samples.shape
    ('done', (2, 1, 16, 16))
    """
    return call_with_options("solver 'ode'", _sample, options, model, x_T, callback)


def _sample(
    model: NetworkModel,
    x_T: NDArray[Any],
    callback: Callback | None,
    /,
    *,
    method: str = "RK45",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    variable: str | None = None,
    end: float | None = None,
    denoise: bool = True,
    max_calls: int = 1000,
) -> Driven:
    refuse_whole_times(model.whole_times)
    course = Course(method, rtol, atol, variable, max_calls).checked(model.precision)
    schedule = model.schedule
    start, last = float(schedule.t_max), float(schedule.t_min if end is None else end)
    flow = flow_between(schedule, model.prediction, variable, start, last)
    # refuses a time with no x0 before any call
    final = level_at(schedule, last)
    state, raw = to_x0(model.prediction, final) if denoise else (1.0, 0.0)

    def ask(x: Floats, level: Level) -> tuple[Floats, None]:
        return model(x, level.t), None

    x = np.asarray(x_T, np.float64) * unit_scale(level_at(schedule, start))
    x, _, report = follow(flow, ask, x, (start, last), course, reserve=int(denoise), callback=callback)
    if denoise:
        before, output = x, model(final.in_scale * x, last)
        report = dataclasses.replace(report, calls=report.calls + 1)
        x = state * x + raw * output
        if not np.isfinite(x).all():
            raise DivergedError(
                "the network returned NaN or infinity",
                got=f"call {report.calls}, which denoises, at t = {last:g}",
                expected="finite numbers",
                fix="denoise=False",
                samples=before,
                t=last,
                report=report.end("diverged"),
            )
        if callback is not None:
            tell(callback, StepEvent(report.calls - 1, max_calls, last, x))
    return Driven(x.astype(np.float64 if x_T.dtype == np.float64 else np.float32), report)
