"""Exact log-likelihood: the probability-flow ODE from data to noise, and the volume that it gains on the way.

By the instantaneous change of variables (Chen et al. 2018; Song et al. 2021, arXiv 2011.13456, section 4.3 and
appendix D.2), log p of the data is log p of the noise that it is carried to, plus the integral of the field's
divergence. The trace in it is Hutchinson's estimate v^T J v, with the same v all along the way (FFJORD, Grathwohl et
al. 2019), so that the mean over v is the likelihood, and, for a diagonal J and v of ones and minus ones, so is each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.ode.course import Course, flow_between, follow
from dpmrt.runtime.ode.field import level_at, unit_scale
from dpmrt.runtime.ode.report import OdeReport
from dpmrt.runtime.request import check_whole
from dpmrt.runtime.vjp import Array, Product
from dpmrt.solvers_np import Callback, Level
from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.options import one_of

PROBES = ("rademacher", "gaussian")
MOST_PROBES = 10_000


@dataclass(frozen=True)
class Likelihood:
    """log p in nats, one number a sample, and in bits per dimension; `noise` is the unit noise of the sample.

    `error` is the standard error of Hutchinson's mean, NaN for one probe. The density is that of the state at the
    time `t`, divided by alpha there: of data with the little noise that the schedule begins with. Bits are counted
    for data of `levels` values that fill `data_range` evenly: -log2 p per dimension, plus `offset`, which is
    log2(levels / (high - low)).
    """

    log_p: Floats
    error: Floats
    bits_per_dim: Floats
    noise: Floats
    probes: int
    t: float
    data_range: tuple[float, float]
    levels: int
    offset: float
    dequantized: bool
    report: OdeReport

    def to_json(self) -> Mapping[str, Any]:
        """Return all but the noise as plain numbers, lists and texts; an unknown error is None."""
        return {
            "log_p": self.log_p.tolist(),
            "error": [value if math.isfinite(value) else None for value in self.error.tolist()],
            "bits_per_dim": self.bits_per_dim.tolist(),
            "mean_log_p": float(self.log_p.mean()),
            "mean_bits_per_dim": float(self.bits_per_dim.mean()),
            "probes": self.probes,
            "t": self.t,
            "data_range": list(self.data_range),
            "levels": self.levels,
            "offset": self.offset,
            "dequantized": self.dequantized,
            "report": self.report.to_json(),
        }


def likelihood_of(
    product: Product,
    data: NDArray[Any],
    *,
    course: Course,
    data_range: tuple[float, float],
    probes: int = 1,
    probe: str = "rademacher",
    seed: int = 0,
    levels: int = 256,
    dequantize: bool = False,
    start: float | None = None,
    callback: Callback | None = None,
) -> Likelihood:
    """Return the likelihood of `data`, (batch, *shape), under the network whose output and product are given.

    The ODE begins at the time `start`, by default the schedule's lowest, and the network is called once for each of
    the `probes` and each evaluation, `course.max_calls` times at most. With `dequantize`, data of so many levels gets
    uniform noise of one level's width, so that it fills the range.
    """
    one_of("probe", probe, PROBES)
    probes = check_whole("probes", probes, 1, MOST_PROBES, fix="probes=1")
    levels = check_whole("levels", levels, 2, 2**31, fix="levels=256")
    seed = check_whole("seed", seed, 0, 2**63, fix="seed=0")
    course = course.checked(product.precision)
    if probes > course.max_calls:
        raise OptionError(
            "each evaluation calls the network once a probe, and the bound on calls is lower",
            got=f"probes={probes}, max_calls={course.max_calls}",
            expected="more calls than probes",
            fix="raise max_calls, or take fewer probes",
        )
    schedule = product.schedule
    first, last = float(schedule.t_min if start is None else start), float(schedule.t_max)
    flow = flow_between(schedule, product.prediction, course.variable, first, last)
    if dequantize:
        data = fill_levels(data, data_range, levels, np.random.default_rng([seed, 1]))
    generator = np.random.default_rng([seed, 0])
    vectors = generator.standard_normal((probes, *product.shape))
    if probe == "rademacher":
        vectors = np.where(vectors < 0, -1.0, 1.0)

    def ask(x: Floats, level: Level) -> tuple[Floats, Floats]:
        raw, traces = np.zeros(0), np.empty((probes, len(x)))
        for number, v in enumerate(vectors):
            raw, row = product(x, level.t, v)
            traces[number] = (row * v).reshape(len(x), -1).sum(axis=1)
        return raw, traces

    size = math.prod(product.shape[1:])
    begin, end = level_at(schedule, first), level_at(schedule, last)
    x, gained, report = follow(
        flow,
        ask,
        begin.alpha * np.asarray(data, np.float64),
        (first, last),
        course,
        probes=probes,
        cost=probes,
        callback=callback,
    )
    # The divergence is that of the scaled state; both ends are brought to their own scales.
    scales = size * (math.log(flow.at(flow.place(last)).scale) - math.log(flow.at(flow.place(first)).scale))
    noise = x / unit_scale(end)
    prior = -0.5 * (noise**2).reshape(len(x), -1).sum(axis=1) - size * math.log(
        math.sqrt(2 * math.pi) * unit_scale(end)
    )
    log_p = prior + scales + gained.mean(axis=0) + size * math.log(begin.alpha)
    spread = gained.std(axis=0, ddof=1) / math.sqrt(probes) if probes > 1 else np.full(len(x), np.nan)
    offset = math.log2(levels / (data_range[1] - data_range[0]))
    return Likelihood(
        log_p=log_p,
        error=spread,
        bits_per_dim=offset - log_p / (size * math.log(2)),
        noise=noise,
        probes=probes,
        t=first,
        data_range=data_range,
        levels=levels,
        offset=offset,
        dequantized=dequantize,
        report=report,
    )


def check_data(data: Array, shape: tuple[int, ...]) -> Array:
    """Return data as an array (batch, *shape), or say what is wrong with it."""
    if data.dtype.kind not in "fiu" or data.ndim != 1 + len(shape) or data.shape[1:] != shape or not len(data):
        raise ArrayError(
            "the data are no batch of samples",
            got=f"{data.dtype}{data.shape}",
            expected=f"numbers, (batch, {', '.join(str(n) for n in shape)})",
        )
    if not np.isfinite(data).all():
        raise ArrayError("the data hold NaN or infinity", expected="finite numbers")
    return data


def fill_levels(data: Array, data_range: tuple[float, float], levels: int, generator: np.random.Generator) -> Floats:
    """Return data, whose `levels` values reach from the lower to the upper end of the range, spread evenly over it.

    >>> fill_levels(np.array([-1.0, 1.0]), (-1.0, 1.0), 2, np.random.default_rng(0)).round(2)
    array([-0.36,  0.27])
    """
    low, high = data_range
    part = (np.asarray(data, np.float64) - low) / (high - low)
    if not ((part >= -1e-6) & (part <= 1 + 1e-6)).all():
        raise ArrayError(
            "the data lie outside the bundle's range, whose levels are to be filled",
            got=f"{np.min(data):g} to {np.max(data):g}",
            expected=f"{low:g} to {high:g}",
            fix="scale the data, or leave out dequantize",
        )
    filled: Floats = low + (high - low) * (part * (levels - 1) + generator.random(part.shape)) / levels
    return filled
