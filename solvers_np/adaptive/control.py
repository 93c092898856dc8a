"""Whether a step is accepted, and by which factor the step size changes after it."""

from __future__ import annotations

import math
from typing import Protocol

from dpmrt.solvers_np.adaptive.options import AdaptiveOptions


class Controller(Protocol):
    """What judges a step by its error, which is 1 where the tolerance is just met; `order` is the pair's higher."""

    def judge(self, error: float, order: int) -> tuple[bool, float]:
        """Return whether the step is accepted, and the factor for the step size."""
        ...


class LuController:
    """The authors' rule (Lu et al. 2022a, DPM-Solver-12 and -23): h becomes theta h error^(-1/order).

    >>> LuController(0.9).judge(8.0, 3)
    (False, 0.45)
    """

    def __init__(self, theta: float) -> None:
        self._theta = theta

    def judge(self, error: float, order: int) -> tuple[bool, float]:
        """Return whether the step is accepted, and the factor for the step size."""
        return error <= 1.0, math.inf if error == 0 else self._theta * error ** (-1.0 / order)


class PIDController:
    """k-diffusion's rule: the errors of the last accepted steps count too, and the factor's change is limited."""

    def __init__(self, pcoeff: float, icoeff: float, dcoeff: float, accept_safety: float) -> None:
        self._powers = (pcoeff + icoeff + dcoeff, -(pcoeff + 2 * dcoeff), dcoeff)
        self._accept_safety = accept_safety
        self._before: tuple[float, float] | None = None

    def judge(self, error: float, order: int) -> tuple[bool, float]:
        """Return whether the step is accepted, and the factor for the step size."""
        inverse = 1.0 / (error + 1e-8)
        one, two = self._before or (inverse, inverse)
        plain = math.prod(value ** (power / order) for value, power in zip((inverse, one, two), self._powers))
        factor = 1.0 + math.atan(plain - 1.0)
        accepted = factor >= self._accept_safety
        if accepted or self._before is None:
            self._before = (inverse, one) if accepted else (one, two)
        return accepted, factor


def controller_for(options: AdaptiveOptions) -> Controller:
    """Return the controller that the options ask for, without a past."""
    if options.controller == "lu":
        return LuController(options.settled("theta"))
    return PIDController(*(options.settled(name) for name in ("pcoeff", "icoeff", "dcoeff", "accept_safety")))
