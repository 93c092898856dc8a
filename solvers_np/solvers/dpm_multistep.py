"""DPM-Solver and DPM-Solver++, multistep, with their SDE forms.

Lu et al. 2022a (DPM-Solver, arXiv 2206.00927) and Lu et al. 2022b (DPM-Solver++, arXiv 2211.01095). In both,
the state moves by an exact linear part plus integrals of the buffered quantity's Taylor terms, which are
h phi_k: of eps with phi_k(h) (2022a, proposition 3.1), of x0 with phi_k(-h) (2022b, the same in data prediction).
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids import NO_LENGTH, Grid
from dpmrt.solvers_np.options import one_of, whole
from dpmrt.solvers_np.phi import hphi
from dpmrt.solvers_np.plan import StepPlan
from dpmrt.solvers_np.prediction import to_eps, to_x0, x0_to_eps
from dpmrt.solvers_np.rows import RowList
from dpmrt.solvers_np.solvers.limits import limit_x0


@dataclasses.dataclass(frozen=True)
class _Form:
    """One of the four solvers: what it buffers, and whether it follows the SDE."""

    buffers_x0: bool
    stochastic: bool
    max_order: int


_DPMSOLVER = _Form(buffers_x0=False, stochastic=False, max_order=3)
_DPMSOLVERPP = _Form(buffers_x0=True, stochastic=False, max_order=3)
_SDE_DPMSOLVER = _Form(buffers_x0=False, stochastic=True, max_order=2)
_SDE_DPMSOLVERPP = _Form(buffers_x0=True, stochastic=True, max_order=2)


def _multistep(
    form: _Form,
    grid: Grid,
    prediction: str,
    *,
    order: int = 2,
    solver_type: str = "midpoint",
    lower_order_final: bool = True,
    lower_order_below: int = 15,
    euler_at_final: bool = False,
    denoise_to_zero: bool = False,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Multistep of order 1, 2 or 3; the first steps, and with few steps the last, are of lower order.

    `lower_order_final` lowers the last two steps of runs below `lower_order_below` steps; `euler_at_final` the
    last of any run; a last step onto zero noise is always of order 1. `solver_type` is "midpoint" or "heun"
    (the second-order Taylor form). `denoise_to_zero` calls the network once more at the end and returns its x0.
    """
    order = whole("order", order, 1, form.max_order)
    one_of("solver_type", solver_type, ("midpoint", "heun"))
    limit = limit_x0(clip, threshold, threshold_max)
    n = len(grid)
    ends = [float(grid.lambda_[0]), *(float(v) for v in grid.lambda_next)]
    rows = RowList(slots=order)
    for i, (t, a, s, a_next, s_next) in enumerate(grid):
        few = lower_order_final and n < lower_order_below
        last = i == n - 1 and (euler_at_final or few or s_next == 0)
        now = 1 if last else min(order, i + 1, 2 if few and i == n - 2 else 3)
        state, terms, noise = _coefficients(form, a, s, a_next, s_next)
        history = _finite_differences(now, solver_type, ends[max(i - 2, 0) : i + 2], terms)
        through_x0 = form.buffers_x0 or limit is not None
        rows.call(
            t,
            i % order,
            level=(a, s),
            state=state,
            history={(i - k) % order: w for k, w in enumerate(history)},
            noise=noise,
            convert=to_x0(prediction, a, s) if through_x0 else to_eps(prediction, a, s),
            instruction=limit,
            restore=x0_to_eps(a, s) if through_x0 and not form.buffers_x0 else (0.0, 1.0),
        )
    if denoise_to_zero:
        if math.isnan(grid.t_end):
            raise OptionError(
                "denoise_to_zero needs a grid that ends inside the schedule",
                got="a grid that ends without noise",
                expected="final='sigma_min', or grid uniform, quadratic or logsnr",
            )
        a, s = float(grid.alpha_next[-1]), float(grid.sigma_next[-1])
        slot = n % order
        rows.call(
            grid.t_end,
            slot,
            level=(a, s),
            convert=to_x0(prediction, a, s),
            instruction=limit,
            state=0.0,
            history={slot: 1.0},
        )
    return rows.plan(order=order)


def _coefficients(
    form: _Form, a: float, s: float, a_next: float, s_next: float
) -> tuple[float, tuple[float, float, float], float]:
    """Return the state's weight, those of the three Taylor terms, and that of the noise."""
    if a == 0:
        raise OptionError(
            "DPM-Solver cannot start where no signal is left",
            got="alpha = 0 at the first time",
            expected="a first time with alpha > 0",
            fix="use solver 'ddim', or a grid that starts later",
        )
    h = math.inf if s_next == 0 else max(math.log(a_next / s_next) - math.log(a / s), 0.0)
    if form.buffers_x0:
        scale = 2.0 if form.stochastic else 1.0
        terms = tuple(a_next * hphi(k, scale * h, -1) for k in (1, 2, 3))
        if not form.stochastic:
            return s_next / s, (terms[0], terms[1], terms[2]), 0.0
        return s_next / s * math.exp(-h), (terms[0], terms[1], terms[2]), s_next * math.sqrt(-math.expm1(-2 * h))
    scale = -2.0 if form.stochastic else -1.0
    if s_next == 0:
        first = scale * a_next * s / a
        return a_next / a, (first, 0.0, 0.0), 0.0 if not form.stochastic else a_next * s / a
    terms = tuple(scale * s_next * hphi(k, h, 1) for k in (1, 2, 3))
    noise = s_next * math.sqrt(math.expm1(2 * h)) if form.stochastic else 0.0
    return a_next / a, (terms[0], terms[1], terms[2]), noise


def _finite_differences(
    order: int, solver_type: str, lambdas: list[float], terms: tuple[float, float, float]
) -> tuple[float, ...]:
    """Turn weights of Taylor terms into weights of the newest, second and third newest buffered quantity.

    `lambdas` ends with the step's own start and end (2022b, DPM-Solver++(2M), and its third-order kin as released).
    """
    h = lambdas[-1] - lambdas[-2]
    if order == 1 or h < NO_LENGTH:
        return (terms[0],)
    h_0 = lambdas[-2] - lambdas[-3]
    r0 = h_0 / h
    if order == 2:
        d1 = (0.5 * terms[0] if solver_type == "midpoint" else terms[1]) / r0
        return terms[0] + d1, -d1
    r1 = (lambdas[-3] - lambdas[-4]) / h
    first, second = (1 / r0, -1 / r0, 0.0), (0.0, 1 / r1, -1 / r1)
    weights = [terms[0], 0.0, 0.0]
    for k in range(3):
        bend = (first[k] - second[k]) / (r0 + r1)
        weights[k] += terms[1] * (first[k] + r0 * bend) + terms[2] * bend
    return tuple(weights)


dpmsolver = partial(_multistep, _DPMSOLVER)
dpmsolverpp = partial(_multistep, _DPMSOLVERPP)
sde_dpmsolver = partial(_multistep, _SDE_DPMSOLVER)
sde_dpmsolverpp = partial(_multistep, _SDE_DPMSOLVERPP)
