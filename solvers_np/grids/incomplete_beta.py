"""The inverse of the regularised incomplete beta function: the quantiles of a beta distribution."""

from __future__ import annotations

import math

import numpy as np

from dpmrt.solvers_np.levels import Floats

#: enough for x <= 1/2 and a, b <= 10: the last term is below 1e-20 of the sum
TERMS = 120
NEWTON_STEPS = 60


def quantile(p: Floats, a: float, b: float) -> Floats:
    """Return x with I_x(a, b) = p, for a and b up to 10.

    >>> quantile(np.array([0.0, 0.5, 1.0]), 2.0, 2.0).round(12).tolist()
    [0.0, 0.5, 1.0]
    """
    upper = p > float(_probability(np.array([0.5]), a, b)[0])
    x = np.empty_like(p)
    x[~upper] = _lower_half(p[~upper], a, b)
    x[upper] = 1 - _lower_half(1 - p[upper], b, a)
    return x


def _probability(x: Floats, a: float, b: float) -> Floats:
    """I_x(a, b) for 0 <= x <= 1/2, by the power series whose terms are all positive (DLMF 8.17.8)."""
    n = np.arange(1, TERMS)
    terms = np.cumprod((a + b + n - 1) / (a + n))
    series = 1 + (x[:, None] ** n) @ terms
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return np.asarray(x**a * (1 - x) ** b * (series * math.exp(-log_beta) / a))


def _lower_half(p: Floats, a: float, b: float) -> Floats:
    """Newton's method on log I over log x, which is nearly straight; bisection where it leaves the bracket."""
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    found = np.zeros_like(p)
    some = p > 0
    target = np.log(p[some])
    near_zero = (target + math.log(a) + log_beta) / a
    # (1 - x)^(b - 1) is at most 2 below 1/2, so the answer lies no further than this below its asymptote at zero
    low, high = near_zero - math.log(2) / a, np.full(target.shape, math.log(0.5))
    u = np.minimum(near_zero, high)
    for _ in range(NEWTON_STEPS):
        x = np.exp(u)
        probability = _probability(x, a, b)
        gap = np.log(probability) - target
        low, high = np.where(gap < 0, u, low), np.where(gap >= 0, u, high)
        slope = np.exp(a * u + (b - 1) * np.log1p(-x) - log_beta) / probability
        step = u - gap / slope
        after = np.where((step > low) & (step < high), step, np.where(gap == 0, u, (low + high) / 2))
        if (np.abs(after - u) <= 1e-16 * np.abs(u)).all():
            break
        u = after
    found[some] = np.exp(u)
    return found
