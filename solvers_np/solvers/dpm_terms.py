"""What the DPM-Solver family shares: the exact linear part of a step, and the weights of its Taylor terms.

Lu et al. 2022a (DPM-Solver, arXiv 2206.00927) and Lu et al. 2022b (DPM-Solver++, arXiv 2211.01095). In both, the
state moves by an exact linear part plus integrals of the buffered quantity's Taylor terms, which are h phi_k: of eps
with phi_k(h) (2022a, eq. 3.4 and 3.6), of x0 with phi_k(-h) (2022b, the same in data prediction).
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import NO_LENGTH, Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.phi import hphi
from dpmrt.solvers_np.plans.instructions import Instruction
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.solvers.asking import eps_at, x0_at
from dpmrt.solvers_np.solvers.rising import refuse_rising

SOLVER_TYPES = ("midpoint", "heun")


@dataclasses.dataclass(frozen=True)
class Form:
    """One of the four solvers: what it buffers, and how much noise it adds (`eta`: 0 the ODE, 1 the SDE)."""

    name: str
    buffers_x0: bool
    eta: float = 0.0


DPMSOLVER = Form("dpmsolver", buffers_x0=False)
DPMSOLVER_PP = Form("dpmsolver++", buffers_x0=True)
SDE_DPMSOLVER = Form("sde-dpmsolver", buffers_x0=False, eta=1.0)
SDE_DPMSOLVER_PP = Form("sde-dpmsolver++", buffers_x0=True, eta=1.0)


class Terms(NamedTuple):
    """A step's weights: of the state, of the quantity's value, slope and bend where the step starts, of the noise."""

    state: float
    value: float
    slope: float
    bend: float
    noise: float


def step_terms(form: Form, here: Level, there: Level) -> Terms:
    """Return the weights of a step; slope and bend are those of derivatives times h and h^2."""
    a, s, a_next, s_next = here.alpha, here.sigma, there.alpha, there.sigma
    h = math.inf if s_next == 0 else there.lambda_ - here.lambda_
    h = 0.0 if abs(h) < NO_LENGTH else h
    if form.buffers_x0:
        value, slope, bend = (a_next * hphi(k, (1 + form.eta) * h, -1) for k in (1, 2, 3))
        if not form.eta:
            return Terms(s_next / s, value, slope, bend, 0.0)
        noise = s_next * math.sqrt(-math.expm1(-2 * form.eta * h))
        return Terms(s_next / s * math.exp(-form.eta * h), value, slope, bend, noise)
    scale = -(1 + form.eta)
    if s_next == 0:
        value = scale * a_next * s / a
        return Terms(a_next / a, value, -math.inf, -math.inf, form.eta * a_next * s / a)
    value, slope, bend = (scale * s_next * hphi(k, h, 1) for k in (1, 2, 3))
    return Terms(a_next / a, value, slope, bend, s_next * math.sqrt(math.expm1(2 * h)) if form.eta else 0.0)


def as_diffusers(form: Form, terms: Terms, there: Level) -> Terms:
    """Return the terms with diffusers' bend: that of sde-dpmsolver++ does not vanish with h, for a sign is wrong."""
    return terms._replace(bend=terms.bend - there.alpha) if form.buffers_x0 and form.eta else terms


def check_grid(form: Form, grid: Grid) -> None:
    """Refuse grids that the form cannot cross."""
    first, last = next(iter(grid.start)), grid.last
    if form.eta:
        refuse_rising(grid, "solver that adds noise", got=form.name, expected="dpmsolver or dpmsolver++")
    if first.alpha == 0 or last.alpha == 0:
        raise OptionError(
            "DPM-Solver cannot start where no signal is left" if first.alpha == 0 else "DPM-Solver needs some signal",
            got=f"alpha = 0 at the {'first' if first.alpha == 0 else 'last'} time",
            expected=f"a {'first' if first.alpha == 0 else 'last'} time with alpha > 0",
            fix="use solver 'ddim', or a grid that starts later" if first.alpha == 0 else "use solver 'ddim'",
        )
    if first.sigma == 0:
        raise OptionError(
            "DPM-Solver cannot start where there is no noise",
            got="sigma = 0 at the first time",
            expected="a first time with sigma > 0",
        )


def ask(rows: PlanWriter, form: Form, prediction: str, level: Level, limit: Instruction | None) -> Mix:
    """Call the network and return what the form buffers."""
    return (x0_at if form.buffers_x0 else eps_at)(rows, prediction, level, limit)


def finished(
    rows: PlanWriter, grid: Grid, prediction: str, limit: Instruction | None, order: int, denoise_to_zero: bool
) -> StepPlan:
    """Return the plan, after one call more that replaces the state by its x0 if `denoise_to_zero`."""
    if not denoise_to_zero:
        return rows.plan(order=order)
    if math.isnan(grid.last.t):
        raise OptionError(
            "denoise_to_zero needs a grid that ends inside the schedule",
            got="a grid that ends without noise",
            expected="final='sigma_min', or grid uniform, quadratic or logsnr",
        )
    rows.move(x0_at(rows, prediction, grid.last, limit))
    return rows.plan(order=order, end=Level(math.nan, 1.0, 0.0))
