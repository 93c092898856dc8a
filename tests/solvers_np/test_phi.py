"""The phi-functions against their Taylor series summed in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from dpmrt.solvers_np.phi import hphi, phi

ARGUMENTS = [
    0.0,
    5e-324,
    1e-300,
    1e-16,
    1e-9,
    -1e-9,
    1e-4,
    -1e-4,
    0.1,
    -0.1,
    0.49,
    0.4999999,
    0.5,
    -0.49,
    -0.5,
    0.51,
    -0.51,
    1.0,
    -1.0,
    2.5,
    -2.5,
    10.0,
    -10.0,
    40.0,
    -40.0,
]


def exact(k: int, z: float) -> float:
    """Sum z^j / (j + k)! with enough exact terms."""
    term, total, j = Fraction(1, math.factorial(k)), Fraction(0), 0
    z_exact = Fraction(z)
    if abs(z) < 1e-30:
        return float(term)
    while abs(term) > Fraction(1, 10**40) * max(abs(total), Fraction(1, 10**60)) or j < 4:
        total += term
        j += 1
        term = (term * z_exact / (j + k)).limit_denominator(10**120)
    return float(total)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("z", ARGUMENTS)
def test_phi(k: int, z: float) -> None:
    assert phi(k, z) == pytest.approx(exact(k, z), rel=1e-13 if k < 4 else 1e-12)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_phi_is_continuous_where_the_series_takes_over(k: int) -> None:
    for z in (0.5, -0.5):
        assert phi(k, z) == pytest.approx(phi(k, math.nextafter(z, 0.0)), rel=1e-14)


def test_limits() -> None:
    assert [phi(k, -math.inf) for k in (1, 2, 3)] == [0.0, 0.0, 0.0]
    assert hphi(1, math.inf, -1) == 1.0
    assert hphi(2, math.inf, -1) == math.inf
    assert hphi(1, math.inf, 1) == math.inf
    assert phi(1, -800.0) == pytest.approx(1 / 800)


@pytest.mark.parametrize("h", [1e-12, 0.3, 2.0])
def test_hphi(h: float) -> None:
    assert hphi(1, h, -1) == pytest.approx(-math.expm1(-h), rel=1e-15)
    assert hphi(1, h, 1) == pytest.approx(math.expm1(h), rel=1e-15)
    assert hphi(2, h, 1) == h * phi(2, h)
    assert hphi(2, h, -1) == h * phi(2, -h)
