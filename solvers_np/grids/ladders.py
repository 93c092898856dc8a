"""Ladders: noise-to-signal ratios (sigma / alpha) from high to low, by a formula that knows no schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.incomplete_beta import quantile
from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.options import within

#: what the shape parameters of a beta distribution may be
SHAPE_RANGE = (0.02, 10.0)


def karras(high: float, low: float, count: int, *, rho: float = 7.0) -> Floats:
    """Space levels evenly in their rho-th root (Karras et al. 2022, eq. 5).

    >>> karras(80.0, 0.002, 3).round(4).tolist()
    [80.0, 2.5152, 0.002]
    """
    _positive_rho(rho)
    with np.errstate(over="ignore", invalid="ignore"):
        first, last = _ends(high, low) ** (1 / rho)
        ratios = np.linspace(first, last, count) ** rho
    if not np.isfinite(ratios).all():
        raise OptionError(
            "rho is so small that the levels leave the numbers", got=rho, expected="about 1 to 100, as 7"
        )
    return _pinned(ratios, high, low)


def exponential(high: float, low: float, count: int) -> Floats:
    """Space levels evenly in their logarithm, which is evenly in lambda."""
    return polyexponential(high, low, count)


def polyexponential(high: float, low: float, count: int, *, rho: float = 1.0) -> Floats:
    """Let the logarithm fall with the rho-th power of what is left to go (k-diffusion)."""
    _positive_rho(rho)
    first, last = np.log(_ends(high, low))
    return _pinned(np.exp(last + (first - last) * np.linspace(1, 0, count) ** rho), high, low)


def beta(high: float, low: float, count: int, *, alpha: float = 0.6, beta: float = 0.6) -> Floats:
    """Space levels by quantiles of a beta distribution, densest at both ends where alpha and beta are below 1.

    As diffusers has it; Lee et al. 2024 (arXiv 2407.12173) so space the times, see `beta_fractions`.
    """
    first, last = _ends(high, low)
    return _pinned(last + (first - last) * beta_fractions(count, alpha, beta), high, low)


def beta_fractions(count: int, alpha: float, beta: float) -> Floats:
    """Return the quantiles of a beta distribution at `count` even probabilities, from 1 down to 0."""
    least, most = SHAPE_RANGE
    for name, value in (("alpha", alpha), ("beta", beta)):
        within(name, value, least, most)
    return quantile(1 - np.linspace(0, 1, count), alpha, beta)


def _ends(high: float, low: float) -> Floats:
    if not 0 < low < high < np.inf:
        raise OptionError(
            "the noise levels have no room between them",
            got=f"from {high:g} down to {low:g}",
            expected="0 < low < high, both finite",
            fix="where no signal is left at the start of the schedule, start below it",
        )
    return np.array([high, low])


def _pinned(ratios: Floats, high: float, low: float) -> Floats:
    """Put the ends where they were asked for, which rounding has moved."""
    ratios[-1], ratios[0] = low, high
    return ratios


def _positive_rho(rho: float) -> None:
    if not rho > 0:
        raise OptionError("rho must be positive", got=rho)


#: "lu" is what diffusers calls even steps in lambda (Lu et al. 2022): the same numbers as "exponential"
LADDERS: Mapping[str, Callable[..., Floats]] = MappingProxyType(
    {
        "karras": karras,
        "exponential": exponential,
        "polyexponential": polyexponential,
        "lu": exponential,
        "beta": beta,
    }
)
