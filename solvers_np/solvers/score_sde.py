"""The predictor-corrector samplers of score SDEs, Song et al. 2021 (arXiv 2011.13456), after the authors' code."""

from __future__ import annotations

import functools
import math

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.options import one_of, whole
from dpmrt.solvers_np.plans.instructions import Langevin
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.prediction import to_score
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.rising import refuse_encoding
from dpmrt.solvers_np.solvers.sde_steps import FLOWS, PREDICTORS, chain

CORRECTORS = ("langevin", "annealed-langevin", "none")


def reverse_diffusion(grid: Grid, prediction: str, *, noise_at_end: bool = False) -> StepPlan:
    """Undo the forward chain x' = r x + g z by x = x' + (1 - r) x' + g^2 score + g z, whichever SDE it belongs to.

    It is `predictor_corrector` without a corrector. The last step adds no noise unless `noise_at_end`.

    >>> from dpmrt.solvers_np import compile_plan
    >>> compile_plan("reverse-diffusion", "ve", 5, grid="uniform", prediction="score").draws
    4
    """
    refuse_encoding(grid, "reverse-diffusion")
    return predictor_corrector(grid, prediction, corrector="none", denoise=not noise_at_end)


def predictor_corrector(
    grid: Grid,
    prediction: str,
    *,
    predictor: str | None = "reverse-diffusion",
    corrector: str | None = "langevin",
    snr: float = 0.16,
    corrector_steps: int = 1,
    denoise: bool = True,
    probability_flow: bool = False,
    per_sample: bool = False,
) -> StepPlan:
    """At each level first correct by `corrector_steps` Langevin steps, then predict the next level.

    A Langevin step's length is set by `snr`: by the norms of noise and score, averaged over the batch or
    `per_sample` ("langevin"), or by the noise level ("annealed-langevin"). The last prediction adds no noise unless
    `denoise` is off. With `probability_flow` the predictor follows the flow of the same marginals, without noise.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("predictor-corrector", "ve", 5, prediction="score", corrector_steps=2)
    >>> plan.calls, plan.draws
    (15, 14)
    """
    predictor, corrector = ("none" if name is None else name for name in (predictor, corrector))
    one_of("predictor", predictor, (*PREDICTORS, "none"))
    one_of("corrector", corrector, CORRECTORS)
    _check(predictor, corrector, snr, probability_flow)
    refuse_encoding(grid, "predictor-corrector")
    steps = 0 if corrector == "none" else whole("corrector_steps", corrector_steps, 1)
    measured = Langevin(float(snr), per_sample) if corrector == "langevin" else None
    step = PREDICTORS.get(predictor)
    if step is not None and probability_flow:
        step = functools.partial(step, flow=True)
    rows = PlanWriter(grid)
    end = here = grid.last
    for i, (here, there) in enumerate(grid):
        for k in range(steps):
            _correct(rows, prediction, here, chain(here, there)[0] ** 2, snr, measured, k)
        if step is not None:
            state, score, noise = step(grid, here, there)
            direction = rows.call(here, to_score(prediction, here))
            noise = 0.0 if denoise and i == len(grid) - 1 else noise
            rows.move(state * rows.x + score * direction, noise=noise, over=(here, there))
    return rows.plan(end=end if step is not None else here, order=1)


def _correct(
    rows: PlanWriter, prediction: str, here: Level, alpha: float, snr: float, measured: Langevin | None, k: int
) -> None:
    """Write the k-th Langevin step at a level: x + step score + sqrt(2 step) z, step = 2 alpha (snr size)^2.

    alpha is the forward chain's, and size |z| / |score| where that is measured, else the noise level.
    """
    if alpha == 0:
        return  # a step of no length
    length = 2 * alpha * (1.0 if measured else (snr * here.sigma) ** 2)
    score = rows.call(here, to_score(prediction, here))
    # A source that heeds intervals draws afresh where the noise does not fall; each interval is another draw.
    span = (here.share - k * math.ulp(here.share), here.share)
    rows.move(rows.x + length * score, noise=math.sqrt(2 * length), over=span, noise_instruction=measured)


def _check(predictor: str, corrector: str, snr: float, probability_flow: bool) -> None:
    if predictor == corrector == "none":
        raise OptionError(
            "neither a predictor nor a corrector is left, so nothing would be sampled",
            got="predictor='none', corrector='none'",
            expected="one of the two",
        )
    if not snr > 0:
        raise OptionError("snr is out of range", got=snr, expected="a number above 0, as 0.16")
    if probability_flow and predictor not in FLOWS:
        raise OptionError(
            "this predictor has no probability flow",
            got=f"predictor={predictor!r}, probability_flow=True",
            expected="one of the predictors " + ", ".join(repr(name) for name in FLOWS),
        )


# Only where the variance explodes is x0 left as it is: elsewhere 2 - r stands for 1 / r.
REVERSE_DIFFUSION = Solver(
    reverse_diffusion,
    paper="Song et al. 2021 (score SDE), appendix E",
    cases=(Case({}, 1.0),),
    noise="yes",
    exact=False,
)
PREDICTOR_CORRECTOR = Solver(
    predictor_corrector,
    paper="Song et al. 2021 (score SDE), predictor-corrector sampling",
    cases=tuple(
        Case({"corrector": "none", "predictor": predictor, **flow}, 1.0)
        for predictor, flow in (
            *((predictor, {}) for predictor in PREDICTORS),
            *((predictor, {"probability_flow": True}) for predictor in FLOWS),
        )
    ),
    calls="1 + corrector_steps",
    noise="yes",
    diffusers=("ScoreSdeVeScheduler",),
    exact=False,
    usual_grid=("uniform", {"final": "zero"}),
)
