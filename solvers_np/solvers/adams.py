"""Adams methods, exponential and plain: steps that integrate the polynomial through values at uneven nodes.

In lambda = log(alpha / sigma) the state moves by an exact linear part plus an integral of x0 or of eps, which is
replaced by the polynomial through buffered values (Lu et al. 2022a, eq. 3.4; the same integral is that of DEIS and
of UniPC). With u from 0 to 1 over the step, the integral of e^{z (1 - u)} u^k is k! phi_{k+1}(z).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dpmrt.solvers_np.grids.grid import NO_LENGTH, Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.phi import phi
from dpmrt.solvers_np.plans.instructions import Instruction, NoiseInstruction
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solvers.asking import eps_at, x0_at


class Step(NamedTuple):
    """A step to x = state x_s + scale * (the integral of e^{z (1 - u)} q over u from 0 to 1) + noise * fresh noise.

    `h` is its length in lambda; a step of no length, or onto zero noise, has z = 0 and takes q as constant.
    """

    h: float
    z: float
    state: float
    scale: float
    noise: float

    @property
    def constant(self) -> bool:
        """Return whether q can only be taken as constant."""
        return self.h == 0 or math.isinf(self.h)


class Nodes(NamedTuple):
    """How many values a step's polynomial goes through: `past` when predicted, `corrected` counting the new one."""

    past: int
    corrected: int = 0


def moments(count: int, z: float) -> list[float]:
    """Return the integrals of e^{z (1 - u)} u^k over u from 0 to 1, for k below `count`.

    >>> moments(3, 0.0)
    [1.0, 0.5, 0.3333333333333333]
    """
    return [math.factorial(k) * phi(k + 1, z) for k in range(count)]


def weights_for(nodes: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Return weights of values at `nodes` that integrate each power u^k to `wanted`[k].

    The algorithm of Bjorck and Pereyra (1970) for systems of Vandermonde, which has no need of the matrix.

    >>> [round(24 * w, 9) for w in weights_for([0, -1, -2, -3], moments(4, 0.0))]
    [55.0, -59.0, 37.0, -9.0]
    """
    weights, n = list(wanted), len(nodes)
    for k in range(n - 1):
        for i in range(n - 1, k, -1):
            weights[i] -= nodes[k] * weights[i - 1]
    for k in range(n - 2, -1, -1):
        for i in range(k + 1, n):
            weights[i] /= nodes[i] - nodes[i - k - 1]
        for i in range(k, n - 1):
            weights[i] -= weights[i + 1]
    return weights


def adams_bashforth(nodes: Sequence[float], end: float) -> list[float]:
    """Return weights of the values at nodes, the newest first, in the integral of their polynomial on to `end`.

    >>> [round(12 * w, 9) for w in adams_bashforth([2.0, 1.0, 0.0], 3.0)]
    [23.0, -16.0, 5.0]
    """
    h = end - nodes[0]
    return weights_for([node - nodes[0] for node in nodes], [h ** (k + 1) / (k + 1) for k in range(len(nodes))])


def exponential_step(here: Level, there: Level, *, buffers_x0: bool, tau: float = 0.0) -> Step:
    """Return the step of the ODE, or, with `tau`, of the SDE with tau^2 as much noise as the reverse SDE adds."""
    h = math.inf if there.sigma == 0 else there.lambda_ - here.lambda_
    h = 0.0 if abs(h) < NO_LENGTH else h
    more = 1.0 + tau**2
    if buffers_x0:
        state = there.sigma / here.sigma * math.exp(-(tau**2) * h)
        noise = there.sigma * math.sqrt(-math.expm1(-2 * tau**2 * h)) if tau else 0.0
        if math.isinf(h):
            return Step(h, 0.0, 0.0, there.alpha, 0.0)
        return Step(h, -more * h, state, there.alpha * more * h, noise)
    state = there.alpha / here.alpha
    if math.isinf(h):
        lost = there.alpha * here.ratio
        return Step(h, 0.0, state, -more * lost, tau * lost)
    noise = tau * there.sigma * math.sqrt(math.expm1(2 * h)) if tau else 0.0
    return Step(h, h, state, -more * there.sigma * h, noise)


def write_adams(
    grid: Grid,
    prediction: str,
    nodes: Sequence[Nodes],
    *,
    buffers_x0: bool,
    slope: str = "exact",
    taus: Sequence[float] | None = None,
    idle: NoiseInstruction | None = None,
    limit: Instruction | None = None,
) -> PlanWriter:
    """Write steps with one call each: predict over `nodes`[i].past values, and correct once the next call is made.

    The correction replaces the last step's polynomial by one that knows the new value too; its linear part and its
    noise stay. `slope` says what a slope known from two values weighs: its "exact" integral, or half of what the
    integral would be if e^{z (1 - u)} were 1 ("bh1") or its own mean ("bh2"). `taus` has a tau for each step, and
    `idle` marks the rows that draw no noise.
    """
    rows, past = PlanWriter(grid), list[tuple[float, Mix]]()
    kept = max(max(n.past for n in nodes), max(n.corrected for n in nodes) - 1)
    step, moved = Step(0.0, 0.0, 1.0, 0.0, 0.0), Mix()
    for i, (here, there) in enumerate(grid):
        q = (x0_at if buffers_x0 else eps_at)(rows, prediction, here, limit)
        x = rows.x
        if i and nodes[i - 1].corrected and not step.constant:
            values = [(past[0][0] + step.h, q), *past][: nodes[i - 1].corrected]
            x = x - moved + _integral(step, values, past[0][0], slope)
        past = [(here.lambda_, q), *past][:kept]
        step = exponential_step(here, there, buffers_x0=buffers_x0, tau=taus[i] if taus else 0.0)
        values = past[: 1 if step.constant else nodes[i].past]
        moved = _integral(step, values, here.lambda_, slope)
        rows.move(
            step.state * x + moved,
            noise=step.noise,
            over=(here, there),
            noise_instruction=None if step.noise else idle,
        )
    return rows


def _integral(step: Step, values: Sequence[tuple[float, Mix]], start: float, slope: str) -> Mix:
    """Return the step's integral of the polynomial through values at the given lambdas."""
    if len(values) == 1:
        return step.scale * phi(1, step.z) * values[0][1]
    wanted = moments(len(values), step.z)
    if len(values) == 2 and slope != "exact":
        wanted[1] = 0.5 if slope == "bh1" else 0.5 * wanted[0]
    weights = weights_for([(lambda_ - start) / step.h for lambda_, _ in values], wanted)
    return sum((step.scale * w * q for w, (_, q) in zip(weights, values)), Mix())
