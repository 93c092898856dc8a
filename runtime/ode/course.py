"""One run along the probability-flow ODE: calls counted and bounded, and what was reached kept when it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpmrt.errors import BudgetError, DivergedError, OptionError, ToleranceError
from dpmrt.runtime.ode.field import ProbabilityFlow
from dpmrt.runtime.ode.integrate import LEAST_TOLERANCE, GaveUpError, check_tolerances, integrate
from dpmrt.runtime.ode.report import OdeReport
from dpmrt.solvers_np import Callback, Level, NoiseSchedule, StepEvent
from dpmrt.solvers_np.execution.events import tell
from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.options import whole

#: what a network in each precision resolves, for states of about unit size
RESOLUTION = {"fp32": 1e-6, "fp16": 2e-3, "bf16": 2e-2}
MOST_CALLS = 10_000_000

#: (scaled state, level) -> the network's raw output, and for likelihoods the trace of its Jacobian, probe by probe
Ask = Callable[[Floats, Level], "tuple[Floats, Floats | None]"]


@dataclass(frozen=True)
class Course:
    """How the ODE is followed: SciPy's method, its tolerances, the variable of integration, the bound on calls."""

    method: str = "RK45"
    rtol: float = 1e-5
    atol: float = 1e-5
    variable: str | None = None
    max_calls: int = 1000

    def checked(self, precision: str) -> Course:
        """Return the course with its tolerances held against what a network of this precision resolves."""
        rtol, atol = check_tolerances(self.method, self.rtol, self.atol, RESOLUTION.get(precision, LEAST_TOLERANCE))
        return Course(self.method, rtol, atol, self.variable, whole("max_calls", self.max_calls, 2, MOST_CALLS))


def refuse_whole_times(whole_times: bool) -> None:
    """Refuse a network that knows whole timesteps only."""
    if whole_times:
        raise OptionError(
            "the network takes whole timesteps, and adaptive steps lead to others",
            got="an ODE solver",
            expected="a network whose timestep is a float",
            fix="export the network again with dpmrt, or choose a solver with a grid",
        )


def flow_between(schedule: NoiseSchedule, prediction: str, variable: str | None, *times: float) -> ProbabilityFlow:
    """Return the field in `variable`, by default in lambda, or in t where lambda is infinite at one of the times.

    Each time is held against the schedule, and has to be one at which the field has a number.
    """
    low, high = schedule.t_range
    for t in times:
        if not low <= t <= high:
            raise OptionError(
                "a time is outside the schedule",
                got=t,
                expected=f"{low:g} to {high:g}",
                fix=f"end={schedule.t_min:g}",
            )
    if variable is None:
        finite = all(np.isfinite(schedule.lambda_(t)) for t in times)
        variable = "lambda" if finite else "t"
    flow = ProbabilityFlow(schedule, prediction, variable)
    for t in times:
        flow.place(t)
    return flow


def follow(
    flow: ProbabilityFlow,
    ask: Ask,
    x: Floats,
    times: tuple[float, float],
    course: Course,
    *,
    probes: int = 0,
    reserve: int = 0,
    cost: int = 1,
    callback: Callback | None = None,
) -> tuple[Floats, Floats, OdeReport]:
    """Carry the states `x` from one time to another; return them there, the divergence on the way, and the report.

    The divergence is that of the field for `flow`'s own scaling of the state, integrated over its variable: one
    number a sample and probe. `ask` makes `cost` calls at a time; `reserve` calls of the bound are left for later.
    What fails raises a PartialError, with the state after the last accepted step.
    """
    report = OdeReport(course.method, flow.variable, course.rtol, course.atol, course.max_calls)
    batch, size = len(x), x.size // len(x)
    start, end = (flow.place(t) for t in times)
    reached = flow.at(start)
    state = np.asarray(x, np.float64) / reached.scale

    def fun(s: float, y: Floats) -> Floats:
        point, z = flow.at(s), y[: x.size].reshape(x.shape)
        if report.calls + cost > course.max_calls - reserve:
            raise BudgetError(
                f"the ODE was not solved within {course.max_calls} network calls",
                got=_where(report),
                expected="a solver that reaches the end",
                fix="raise max_calls, or loosen rtol and atol",
                **partial("budget"),
            )
        seen = point.scale * z
        with np.errstate(over="ignore", invalid="ignore"):
            raw, trace = ask(point.level.in_scale * seen, point.level)
        report.calls += cost
        if not np.isfinite(raw).all() or (trace is not None and not np.isfinite(trace).all()):
            raise DivergedError(
                "the network returned NaN or infinity",
                got=f"call {report.calls}, at t = {point.level.t:g}",
                expected="finite numbers",
                fix="tighter tolerances, or another variable",
                **partial("diverged"),
            )
        if callback is not None:
            seen.flags.writeable = False
            tell(callback, StepEvent(report.calls - 1, course.max_calls, point.level.t, seen))
        moved = (point.state * z + point.raw * raw).reshape(-1)
        if trace is None:
            return moved
        spread = point.state * size + point.raw * point.level.in_scale * point.scale * trace
        return np.concatenate([moved, spread.reshape(-1)])

    def watch(s: float, y: Floats, jacobians: int) -> None:
        nonlocal reached, state
        reached, state = flow.at(s), y[: x.size].reshape(x.shape)
        report.t.append(reached.level.t)
        report.lambda_.append(reached.level.lambda_)
        report.called.append(report.calls)
        report.jacobians = jacobians

    def partial(status: str) -> dict[str, Any]:
        return {"samples": reached.scale * state, "t": reached.level.t, "report": report.end(status, _where(report))}

    rows = np.arange(batch)
    blocks = np.concatenate([np.repeat(rows, size), np.tile(rows, probes)])
    try:
        y = integrate(
            fun,
            (start, end),
            np.concatenate([state.reshape(-1), np.zeros(probes * batch)]),
            method=course.method,
            rtol=course.rtol,
            atol=course.atol,
            blocks=blocks,
            watch=watch,
        )
    except GaveUpError as error:
        raise ToleranceError(
            f"{course.method} gave up",
            got=f"{error} ({_where(report)})",
            expected=f"steps that keep rtol={course.rtol:g}, atol={course.atol:g}",
            fix="looser tolerances, another method or another variable",
            **partial("failed"),
        ) from None
    report.end("done", "the end was reached")
    return reached.scale * state, y[x.size :].reshape(probes, batch), report


def _where(report: OdeReport) -> str:
    t = report.t[-1] if report.t else float("nan")
    return f"{report.calls} calls, {report.steps} step{'s' * (report.steps != 1)}, t = {t:.6g}"
