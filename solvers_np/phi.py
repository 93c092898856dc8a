"""The phi-functions of exponential integrators, accurate for every argument.

phi_1(z) = (e^z - 1) / z and phi_{k+1}(z) = (phi_k(z) - 1/k!) / z, with phi_k(0) = 1/k!. The recursion cancels
for small z, so there the Taylor series is summed instead.
"""

from __future__ import annotations

import functools
import math

_SERIES_BELOW = 0.5
_TERMS = 18


@functools.cache
def _coefficients(k: int) -> tuple[float, ...]:
    """Return those of the Taylor series, highest power first."""
    return tuple(1.0 / math.factorial(j + k) for j in reversed(range(_TERMS)))


def phi(k: int, z: float) -> float:
    """Return phi_k(z) for k = 1, 2, 3, ...

    >>> phi(1, 0.0), phi(2, 0.0)
    (1.0, 0.5)
    """
    if abs(z) < _SERIES_BELOW:
        total = 0.0
        for coefficient in _coefficients(k):
            total = total * z + coefficient
        return total
    if z == -math.inf:
        return 0.0
    value = math.expm1(z) / z
    for order in range(1, k):
        value = (value - 1.0 / math.factorial(order)) / z
    return value


def hphi(k: int, h: float, sign: int) -> float:
    """Return h * phi_k(sign * h), with its limit for infinite h when sign is -1."""
    if math.isinf(h):
        return 1.0 if k == 1 and sign < 0 else math.inf
    return h * phi(k, sign * h)
