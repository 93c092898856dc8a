"""DPM-Solver and DPM-Solver++, multistep, with their SDE forms (2M, 3M): one network call a step."""

from __future__ import annotations

import dataclasses
from functools import partial

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import NO_LENGTH, Grid
from dpmrt.solvers_np.options import one_of, within
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.dpm_terms import (
    DPMSOLVER,
    DPMSOLVER_PP,
    SDE_DPMSOLVER,
    SDE_DPMSOLVER_PP,
    SOLVER_TYPES,
    Form,
    Terms,
    as_diffusers,
    ask,
    check_grid,
    finished,
    step_terms,
)
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.orders import order_within

#: diffusers lowers the last steps of runs with fewer steps than this
FEW_STEPS = 15
THIRD_ORDERS = ("released", "taylor", "diffusers")


def multistep(
    form: Form,
    grid: Grid,
    prediction: str,
    *,
    order: int | None = None,
    solver_type: str = "midpoint",
    third_order: str = "released",
    eta: float | None = None,
    lower_order_final: bool = True,
    lower_order_below: int = FEW_STEPS,
    euler_at_final: bool = False,
    denoise_to_zero: bool = False,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """Multistep of order 1, 2 (unless given) or 3; the first steps, and with few steps the last, are of lower order.

    `lower_order_final` lowers the last two steps of runs below `lower_order_below` steps (diffusers' 15; DPM-Solver's
    own code has 10); `euler_at_final` the last of any run; a last step onto zero noise is always of order 1.
    `solver_type` is "midpoint" or "heun" (the second-order Taylor form). `third_order` weighs the second derivative:
    "released" by half its Taylor weight, as DPM-Solver's code, diffusers and k-diffusion's 3M SDE do, which is of
    order 2; "taylor" in full, of order 3; "diffusers" as released but for sde-dpmsolver++, where diffusers' weight
    does not vanish with the step. `eta`, for sde-dpmsolver++, scales its noise: 1 follows the SDE, 0 the ODE.
    `denoise_to_zero` calls the network once more at the end and returns its x0.
    """
    order = order_within(order, len(grid), most=3)
    one_of("solver_type", solver_type, SOLVER_TYPES)
    one_of("third_order", third_order, THIRD_ORDERS)
    if third_order != "released" and order < 3:
        raise OptionError("third_order needs order 3", got=f"third_order={third_order!r} with order={order}")
    form = with_eta(form, eta)
    check_grid(form, grid)
    limit = limit_x0(clip, threshold, threshold_max)
    n = len(grid)
    ends = [float(grid.start.lambda_[0]), *(float(v) for v in grid.end.lambda_)]
    rows, buffered = PlanWriter(grid), list[Mix]()
    for i, (here, there) in enumerate(grid):
        few = lower_order_final and n < lower_order_below
        last = i == n - 1 and (euler_at_final or few or there.sigma == 0)
        now = 1 if last else min(order, i + 1, 2 if few and i == n - 2 else 3)
        terms = step_terms(form, here, there)
        if third_order == "taylor":
            terms = terms._replace(bend=2 * terms.bend)
        elif third_order == "diffusers":
            terms = as_diffusers(form, terms, there)
        buffered.insert(0, ask(rows, form, prediction, here, limit))
        weights = _differences(now, solver_type, ends[max(i - 2, 0) : i + 2], terms)
        moved = sum((w * q for w, q in zip(weights, buffered)), terms.state * rows.x)
        rows.move(moved, noise=terms.noise, over=(here, there))
    return finished(rows, grid, prediction, limit, order, denoise_to_zero)


def with_eta(form: Form, eta: float | None) -> Form:
    """Return the form with its noise scaled."""
    if eta is None:
        return form
    if form != SDE_DPMSOLVER_PP:
        raise OptionError(f"{form.name} takes no eta", got=f"eta={eta}", expected="sde-dpmsolver++ with eta")
    within("eta", eta, 0, 1, "0 (the ODE) to 1 (the SDE)")
    return dataclasses.replace(form, eta=float(eta))


def _differences(order: int, solver_type: str, lambdas: list[float], terms: Terms) -> tuple[float, ...]:
    """Turn weights of Taylor terms into weights of the newest, second and third newest buffered quantity.

    `lambdas` ends with the step's own start and end (2022b, DPM-Solver++(2M), and its third-order kin as released).
    """
    h = lambdas[-1] - lambdas[-2]
    if order == 1 or abs(h) < NO_LENGTH:
        return (terms.value,)
    r0 = (lambdas[-2] - lambdas[-3]) / h
    if order == 2:
        d1 = (0.5 * terms.value if solver_type == "midpoint" else terms.slope) / r0
        return terms.value + d1, -d1
    r1 = (lambdas[-3] - lambdas[-4]) / h
    first, second = (1 / r0, -1 / r0, 0.0), (0.0, 1 / r1, -1 / r1)
    weights = [terms.value, 0.0, 0.0]
    for k in range(3):
        bend = (first[k] - second[k]) / (r0 + r1)
        weights[k] += terms.slope * (first[k] + r0 * bend) + terms.bend * bend
    return tuple(weights)


_PAPER_1 = "Lu et al. 2022a (DPM-Solver), eq. 3.4 and 3.6"
_PAPER_2 = "Lu et al. 2022b (DPM-Solver++), algorithm 2 for order 2"
_PAPER_SDE = "Lu et al. 2022b (DPM-Solver++)"
_CASES = (
    Case({"order": 1}, 1.0),
    Case({"order": 2, "solver_type": "midpoint"}, 2.0),
    Case({"order": 2, "solver_type": "heun"}, 2.0),
)
# the SDE's third order is left out: mean and variance tend to the exact ones in order 2, but only past 200 steps
_ORDER_3 = (Case({"order": 3}, 2.0), Case({"order": 3, "third_order": "taylor"}, 3.0, starts_at=1.0))
_DIFFUSERS = ("DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler")
_AND_EDM = (*_DIFFUSERS, "EDMDPMSolverMultistepScheduler")

DPM_SOLVER = Solver(partial(multistep, DPMSOLVER), _PAPER_1, (*_CASES, *_ORDER_3), diffusers=_DIFFUSERS)
DPM_SOLVER_PP = Solver(partial(multistep, DPMSOLVER_PP), _PAPER_2, (*_CASES, *_ORDER_3), diffusers=_AND_EDM)
SDE_DPM_SOLVER = Solver(partial(multistep, SDE_DPMSOLVER), _PAPER_SDE, _CASES, noise="yes", diffusers=_DIFFUSERS[:1])
SDE_DPM_SOLVER_PP = Solver(
    partial(multistep, SDE_DPMSOLVER_PP), _PAPER_SDE, _CASES, noise="yes", diffusers=(_AND_EDM[0], _AND_EDM[-1])
)
