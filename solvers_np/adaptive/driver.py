"""DPM-Solver-12 and -23: the loop that tries steps, keeps those within the tolerance and sizes the next.

Lu et al. 2022a (DPM-Solver, arXiv 2206.00927), adaptive step size, as the authors' `dpm_solver_adaptive` has it; with
x0 in place of eps, the same for DPM-Solver++ (Lu et al. 2022b). A rejected step's first call serves the next try.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, BudgetError, DivergedError, NonFiniteError, ToleranceError
from dpmrt.solvers_np.adaptive.control import controller_for
from dpmrt.solvers_np.adaptive.ends import end_levels
from dpmrt.solvers_np.adaptive.network import CountedNetwork
from dpmrt.solvers_np.adaptive.options import AdaptiveOptions
from dpmrt.solvers_np.adaptive.pace import Move, Pace
from dpmrt.solvers_np.adaptive.pair import Attempt, attempt_step
from dpmrt.solvers_np.adaptive.report import AdaptiveReport, Trial
from dpmrt.solvers_np.adaptive.tolerance import Tolerance
from dpmrt.solvers_np.execution.events import Callback
from dpmrt.solvers_np.execution.failures import not_finite
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.options import call_with_options, choose, one_of
from dpmrt.solvers_np.prediction import PREDICTIONS
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule
from dpmrt.solvers_np.solvers.dpm_terms import DPMSOLVER, DPMSOLVER_PP, Form
from dpmrt.solvers_np.solvers.limits import limit_x0

Array = NDArray[Any]
T = TypeVar("T")

#: what each solver buffers, and the higher order of its pair
ADAPTIVE: Mapping[str, tuple[Form, int]] = MappingProxyType(
    {
        "dpm-solver-12": (DPMSOLVER, 2),
        "dpm-solver-23": (DPMSOLVER, 3),
        "dpm-solver++12": (DPMSOLVER_PP, 2),
        "dpm-solver++23": (DPMSOLVER_PP, 3),
    }
)


class Adaptive(NamedTuple):
    """The samples of an adaptive run, which are the caller's, and how they came about."""

    samples: Array
    report: AdaptiveReport


def run_adaptive(
    solver: str,
    model: Callable[[Array, Array], Array],
    schedule: NoiseSchedule,
    x: Array,
    *,
    prediction: str = "epsilon",
    callback: Callback | None = None,
    **options: Any,
) -> Adaptive:
    """Sample from the state `x` at `t_start`, or the schedule's last time, with steps chosen by their error.

    `model(x, t)` is as for `run_plan`; `options` are those of AdaptiveOptions. The batch steps together. Float64 in,
    float64 throughout; else float32. Where `t_end` lies above `t_start`, the samples are encoded.

    >>> import numpy as np
    >>> from dpmrt.solvers_np import make_schedule
    >>> samples, report = run_adaptive("dpm-solver-23", lambda x, t: 0 * x, make_schedule("linear"), np.ones((1, 2)))
    >>> samples.shape, report.calls == sum(3 if o == "accepted" else 2 for o in report.outcome)
    ((1, 2), True)
    """
    form, order = choose("adaptive solver", solver, ADAPTIVE)
    settings = call_with_options(f"solver {solver!r}", AdaptiveOptions, options)
    one_of("prediction", prediction, PREDICTIONS)
    limit = limit_x0(settings.clip, settings.threshold, settings.threshold_max)
    network = CountedNetwork(model, prediction, limit, settings.max_calls, callback)
    return _Run(solver, form, order, network, schedule, _checked(x), settings).finish()


class _Run:
    """A run under way: the state, where it is, and what was tried. All arrays have the dtype of `x`."""

    def __init__(
        self,
        solver: str,
        form: Form,
        order: int,
        network: CountedNetwork,
        schedule: NoiseSchedule,
        x: Array,
        settings: AdaptiveOptions,
    ) -> None:
        self._solver, self._form, self._network = solver, form, network
        self._schedule, self._settings = schedule, settings
        self._start, self._last = end_levels(schedule, settings)
        self._here, self._way = self._start, math.copysign(1.0, self._last.lambda_ - self._start.lambda_)
        # what the error is held against, beside the new state: the lower order's of the last step, as in the paper
        self._x = self._previous = x
        self._first: Array | None = None
        self._tolerance = Tolerance(settings.atol, settings.rtol, settings.norm)
        self._controller, self._pace = controller_for(settings), Pace(settings, order, x.dtype)
        self._trials: list[Trial] = []

    def finish(self) -> Adaptive:
        """Step until the end is reached; what ends the run before carries how far it came."""
        if self._tolerance.rounding(self._x) > 1:
            raise self._too_tight()
        ask = self._network.x0 if self._form.buffers_x0 else self._network.eps
        while self._remaining > 0:
            move = self._choose()
            self._judge(move, self._guarded(self._attempt, ask, move))
        samples = self._x
        if self._settings.denoise_to_zero:
            samples = self._guarded(self._network.x0, samples, self._last)
        return Adaptive(samples.copy(), self._report())

    @property
    def _remaining(self) -> float:
        return abs(self._last.lambda_ - self._here.lambda_)

    def _choose(self) -> Move:
        left = self._settings.max_calls - self._settings.denoise_to_zero - self._network.calls
        move = self._pace.choose(self._remaining, left + (self._first is not None))
        if isinstance(move, Move):
            return move
        raise self._out_of_calls() if move == "budget" else self._underflow()

    def _attempt(self, ask: Callable[[Array, Level], Array], move: Move) -> Attempt:
        with np.errstate(all="ignore"):
            tried = attempt_step(
                self._form,
                ask,
                self._schedule.level,
                self._x,
                self._here,
                self._end_of(move),
                move.order,
                self._settings.solver_type,
                self._first,
            )
        self._check(bool(np.isfinite(tried.state).all()))
        return tried

    def _end_of(self, move: Move) -> Level:
        if move.last:
            return self._last
        return self._schedule.level(self._here.lambda_ + self._way * move.h)

    def _judge(self, move: Move, tried: Attempt) -> None:
        """Take the step or leave it, and note what happened."""
        error, lower, accepted, factor = math.nan, tried.state, False, 1.0
        if tried.difference is not None:
            lower = tried.state - tried.difference
            with np.errstate(all="ignore"):
                error = self._tolerance.of(tried.difference, lower, self._previous)
            self._guarded(self._check, math.isfinite(error))
            accepted, factor = self._controller.judge(error, move.order)
        outcome = "accepted" if accepted else "forced" if move.forced else "rejected"
        h, calls, here = self._way * move.h, self._network.calls, self._here
        self._trials.append(Trial(here.t, here.lambda_, h, move.order, error, outcome, calls, move.lowered))
        if outcome == "rejected":
            self._first = tried.first
        else:
            self._x, self._previous, self._first, self._here = tried.state, lower, None, self._end_of(move)
        self._pace.follow(move, factor, outcome)

    def _check(self, finite: bool) -> None:
        if not finite:
            raise not_finite("state", call=self._network.calls, calls=self._settings.max_calls, t=self._here.t)

    def _guarded(self, work: Callable[..., T], *given: Any) -> T:
        """Do some work; NaN that comes up in it ends the run with the state from before."""
        try:
            return work(*given)
        except NonFiniteError as error:
            raise DivergedError(
                error.what, got=error.got, expected=error.expected, fix=error.fix, **self._partial()
            ) from None

    def _out_of_calls(self) -> BudgetError:
        return BudgetError(
            "the network calls ran out before the end was reached",
            got=f"{self._network.calls} of {self._settings.max_calls} calls, {self._where()}",
            expected=f"t = {self._last.t:g}, lambda = {self._last.lambda_:.4f}",
            fix="raise max_calls, atol or rtol, or choose on_budget='finish' to reach the end all the same",
            **self._partial(),
        )

    def _underflow(self) -> ToleranceError:
        errors = [trial.error for trial in self._trials]
        return ToleranceError(
            f"the tolerance cannot be met: the step size fell below what {self._x.dtype} resolves",
            got=f"an error of {errors[-1]:.3g} in a step of {abs(self._trials[-1].h):.2g}, {self._where()}",
            expected="an error of at most 1",
            fix="raise atol or rtol; float64 helps if the network is smooth, nothing else if it is not",
            **self._partial(),
        )

    def _too_tight(self) -> ToleranceError:
        eps = float(np.finfo(self._x.dtype).eps)
        least = eps * float(np.sqrt(np.mean(np.square(self._x, dtype=np.float64))))
        return ToleranceError(
            f"the tolerance cannot be met: it is below the rounding of {self._x.dtype}",
            got=f"atol={self._settings.atol:g}, rtol={self._settings.rtol:g}",
            expected=f"an rtol above {eps:.1e} or an atol above {least:.1e}",
            fix="raise one of them" + (", or pass float64" if self._x.dtype != np.float64 else ""),
            **self._partial(),
        )

    def _where(self) -> str:
        return f"at t = {self._here.t:g}, lambda = {self._here.lambda_:.4f}"

    def _partial(self) -> dict[str, Any]:
        return {"samples": self._x.copy(), "t": self._here.t, "report": self._report()}

    def _report(self) -> AdaptiveReport:
        given = {name: value for name, value in vars(self._settings).items() if value is not None}
        return AdaptiveReport(
            self._solver,
            given,
            str(self._x.dtype),
            self._start.t,
            self._last.t,
            self._here.t,
            self._remaining == 0,
            self._network.calls,
            tuple(self._trials),
        )


def _checked(x: Array) -> Array:
    x = np.asarray(x)
    if x.dtype.kind != "f":
        raise ArrayError("the initial state has the wrong dtype", got=x.dtype, expected="a floating-point dtype")
    if x.ndim < 2 or x.size == 0:
        raise ArrayError("the shape needs a batch axis and at least one more", got=x.shape)
    x = x.astype(np.float64 if x.dtype == np.float64 else np.float32)
    if not np.isfinite(x).all():
        raise NonFiniteError("the initial state holds NaN or infinity")
    return x
