"""The probability-flow ODE of Song et al. 2021 (arXiv 2011.13456, section 4.3), in the schedule of any network.

With x = alpha x0 + sigma eps, where x0 and eps are what the network makes of x, it reads

    dx/dt = alpha' x0 + sigma' eps,

which holds for every schedule, and is regular where no signal is left. Its path from noise to data does not depend on
what is counted as time, nor on how x is scaled on the way, but the work of a solver does. VARIABLES are the choices:

    lambda  log(alpha / sigma), for x divided by hypot(alpha, sigma), which keeps it as large as unit noise:
            dz/dlambda = -c s (c eps - s x0), with (c, s) = (alpha, sigma) / hypot(alpha, sigma)
    sigma   the ratio r = sigma / alpha, for x divided by alpha: dz/dr = eps (Karras et al. 2022, section 4)
    t       the network's time, for x itself
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dpmrt.errors import OptionError
from dpmrt.runtime.ode.clock import Clock
from dpmrt.solvers_np import Level, NoiseSchedule
from dpmrt.solvers_np.options import choose, one_of
from dpmrt.solvers_np.prediction import PREDICTIONS, to_eps, to_x0

VARIABLES = ("lambda", "sigma", "t")


def level_at(schedule: NoiseSchedule, t: float) -> Level:
    """Return the level at the time `t`."""
    return Level(float(t), float(schedule.alpha(t)), float(schedule.sigma(t)), float(schedule.in_scale(t)))


def unit_scale(level: Level) -> float:
    """Return what unit noise is multiplied by to start at a level: as for a plan, 1 where the variance is kept."""
    kept = abs(level.alpha**2 + level.sigma**2 - 1) < 1e-6
    return 1.0 if kept else level.sigma


class Point(NamedTuple):
    """The field at one place: dz/ds = state * z + raw * output, where x = scale * z and the network sees x."""

    level: Level
    scale: float
    state: float
    raw: float


class ProbabilityFlow:
    """The field that carries noise to data: where a time lies in its variable, and its weights there.

    >>> from dpmrt.solvers_np import make_schedule
    >>> flow = ProbabilityFlow(make_schedule("ve"), "epsilon", "sigma")
    >>> flow.at(2.0).state, flow.at(2.0).raw
    (0.0, 1.0)
    """

    def __init__(self, schedule: NoiseSchedule, prediction: str, variable: str = "lambda") -> None:
        one_of("prediction", prediction, PREDICTIONS)
        one_of("variable", variable, VARIABLES)
        self.schedule = schedule
        self.prediction = prediction
        self.variable = variable
        self._clock = Clock(schedule) if variable == "t" else None
        self._at = choose("variable", variable, {"lambda": self._at_lambda, "sigma": self._at_ratio, "t": self._at_t})

    def place(self, t: float) -> float:
        """Return where in the variable the time `t` lies; refuse one where the field has no number."""
        level = level_at(self.schedule, t)
        if self.variable != "t" and not math.isfinite(level.lambda_):
            left = "signal" if level.lambda_ < 0 else "noise"
            raise OptionError(
                f"no {left} is left at this time, which lies at infinity in log(alpha / sigma)",
                got=f"t = {t:g}, variable={self.variable!r}",
                expected=f"a time with some {left}, or variable='t'",
                fix="variable='t'",
            )
        place = {"t": t, "lambda": level.lambda_, "sigma": level.ratio}[self.variable]
        try:
            self.at(place)
        except OptionError as error:
            raise OptionError(
                error.what,
                got=f"t = {t:g}: {error.got}",
                expected=error.expected,
                fix="end at a time with some noise left, start at one with some signal",
            ) from None
        return place

    def at(self, s: float) -> Point:
        """Return the weights of the field at `s`."""
        return self._at(s)

    def _at_lambda(self, s: float) -> Point:
        level = self.schedule.level(s)
        scale = math.hypot(level.alpha, level.sigma)
        c, d = level.alpha / scale, level.sigma / scale
        state, raw = self._mixed(level, c * d * d, -c * c * d)
        return Point(level, scale, scale * state, raw)

    def _at_ratio(self, s: float) -> Point:
        level = self.schedule.level(-math.log(s))
        state, raw = to_eps(self.prediction, level)
        return Point(level, level.alpha, level.alpha * state, raw)

    def _at_t(self, s: float) -> Point:
        assert self._clock is not None
        level, signal, noise = self._clock.at(s)
        state, raw = self._mixed(level, signal, noise)
        return Point(level, 1.0, state, raw)

    def _mixed(self, level: Level, x0: float, eps: float) -> tuple[float, float]:
        """Return weights of (state, raw output) that make x0 * x0 + eps * eps."""
        data, noise = to_x0(self.prediction, level), to_eps(self.prediction, level)
        return x0 * data[0] + eps * noise[0], x0 * data[1] + eps * noise[1]
