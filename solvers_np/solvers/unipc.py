"""UniPC, Zhao et al. 2023: a multistep predictor and a corrector that share one network call a step."""

from __future__ import annotations

from collections.abc import Sequence

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.options import one_of
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers.adams import Nodes, write_adams
from dpmrt.solvers_np.solvers.limits import limit_x0
from dpmrt.solvers_np.solvers.orders import order_within
from dpmrt.solvers_np.solvers.ratio import check_ends

SOLVER_TYPES = ("bh1", "bh2")


def unipc(
    grid: Grid,
    prediction: str,
    *,
    order: int | None = None,
    solver_type: str = "bh2",
    predict_x0: bool = True,
    corrector: bool = True,
    disable_corrector: Sequence[float] = (),
    lower_order_final: bool = True,
    clip: float | None = None,
    threshold: float | None = None,
    threshold_max: float = 1.0,
) -> StepPlan:
    """UniPC-p: predictor UniP of `order` p, 1 to 6 (2 unless given), corrected by UniC to order p + 1.

    The call at a step's end, made for the next step, corrects it. `disable_corrector` lists steps, counted from 0,
    that stay as predicted, as the last always does. `solver_type` is B(h) of the paper, h ("bh1") or e^h - 1 ("bh2"),
    which weighs a slope known from two values; above two both are exact. `predict_x0` integrates x0, else eps. The
    first steps are of lower order, and so are the last with `lower_order_final`; one onto zero noise is of order 1.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = compile_plan("unipc", "scaled_linear", 20, order=3)
    >>> plan.calls, plan.slots
    (20, 4)
    """
    check_ends(grid, "unipc")
    n = len(grid)
    order = order_within(order, n)
    one_of("solver_type", solver_type, SOLVER_TYPES)
    predicted = _steps(disable_corrector, n) if corrector else set(range(n))
    orders = [min(order, i + 1, n - i if lower_order_final else order) for i in range(n)]
    nodes = [Nodes(p, 0 if i in predicted else p + 1) for i, p in enumerate(orders)]
    limit = limit_x0(clip, threshold, threshold_max)
    rows = write_adams(grid, prediction, nodes, buffers_x0=predict_x0, slope=solver_type, limit=limit)
    return rows.plan(order=order)


def _steps(listed: Sequence[float], n: int) -> set[int]:
    wrong = [step for step in listed if int(step) != step or not 0 <= step < n]
    if wrong:
        raise OptionError(
            "disable_corrector names a step that there is not",
            got=f"{wrong[0]!r} of {n} steps",
            expected=f"whole numbers from 0 to {n - 1}",
        )
    return {int(step) for step in listed}


_PREDICTED = {"corrector": False}
UNIPC = Solver(
    unipc,
    paper="Zhao et al. 2023 (UniPC), theorem 3.1 and eq. 5",
    cases=(
        *(Case({"order": 1, "solver_type": kind}, 2.0) for kind in SOLVER_TYPES),
        *(Case({"order": 2, "solver_type": kind}, 3.0, starts_at=2.0) for kind in SOLVER_TYPES),
        Case({"order": 3}, 4.0, starts_at=2.0),
        Case({"order": 1, "predict_x0": False}, 2.0),
        Case({"order": 2, "predict_x0": False}, 3.0, starts_at=2.0),
        Case({"order": 3, "predict_x0": False}, 4.0, starts_at=2.0),
        Case({"order": 1, **_PREDICTED}, 1.0),
        *(Case({"order": 2, "solver_type": kind, **_PREDICTED}, 2.0) for kind in SOLVER_TYPES),
        Case({"order": 3, **_PREDICTED}, 3.0, starts_at=1.0),
    ),
    diffusers=("UniPCMultistepScheduler",),
)
