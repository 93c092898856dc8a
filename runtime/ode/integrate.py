"""SciPy's solvers of ordinary differential equations, the ones behind `solve_ivp`, taken step by step.

`solve_ivp` keeps the state of every step and loses all of them when a call fails; stepping its solvers keeps one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import BackendError, MissingExtraError, OptionError
from dpmrt.runtime.interrupt import was_interrupted
from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.options import finite_number, one_of

METHODS = ("RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA")
#: those that hold a matrix of all numbers by all numbers, found by differences: a call for each of a sample's
IMPLICIT = ("Radau", "BDF", "LSODA")
MOST_IMPLICIT = 8192
#: below this a step's error is what rounding leaves of it, in float64
LEAST_TOLERANCE = 1e-13

Field = Callable[[float, Floats], Floats]
Watch = Callable[[float, Floats, int], None]


class GaveUpError(Exception):
    """What a solver says when it cannot go on; `follow` makes a ToleranceError of it."""


def check_tolerances(method: str, rtol: object, atol: object, least: float = LEAST_TOLERANCE) -> tuple[float, float]:
    """Return the tolerances; refuse a method that SciPy has not, and tolerances that cannot be met.

    `least` is what the network resolves: of two answers for the same state, what they differ by.
    """
    one_of("method", method, METHODS)
    numbers = {name: finite_number(value) for name, value in (("rtol", rtol), ("atol", atol))}
    for name, number in numbers.items():
        if number is None or number < 0:
            raise OptionError(f"{name} is no tolerance", got=numbers[name], expected="a finite number from 0")
    relative, absolute = float(numbers["rtol"] or 0.0), float(numbers["atol"] or 0.0)
    if relative > 1:
        raise OptionError("rtol is out of range", got=relative, expected=f"{least:g} to 1")
    if relative + absolute < least:
        raise OptionError(
            "the network is not precise enough to meet these tolerances",
            got=f"rtol={relative:g}, atol={absolute:g}",
            expected=f"rtol + atol of at least {least:g}: below it a step's error is the network's own rounding",
            fix=f"rtol={10 * least:g}, atol={10 * least:g}",
        )
    return relative, absolute


def integrate(
    fun: Field,
    span: tuple[float, float],
    y: Floats,
    *,
    method: str,
    rtol: float,
    atol: float,
    blocks: NDArray[np.int64] | None = None,
    watch: Watch,
) -> Floats:
    """Follow dy/ds = fun(s, y) from span[0] to span[1], and return y there.

    `watch(s, y, jacobians)` is called where the solver starts and after each accepted step. `blocks` says which
    numbers of y belong together, one index each: those of other blocks do not influence them, which spares implicit
    methods most of their Jacobian. What `fun` and `watch` raise goes through.
    """
    solvers = _scipy()
    if method in IMPLICIT and y.size > MOST_IMPLICIT:
        raise OptionError(
            f"{method} is for fewer numbers at once: it holds a matrix of all by all",
            got=y.size,
            expected=f"{MOST_IMPLICIT} at most, over the whole batch",
            fix="method='RK45', or a smaller batch",
        )
    low, high = min(span), max(span)

    def inside(s: float, state: Floats) -> Floats:
        # the last stage of a step may miss the end by a rounding
        return fun(min(max(float(s), low), high), state)

    options: dict[str, Any] = {"rtol": max(rtol, LEAST_TOLERANCE), "atol": atol}
    if method in ("Radau", "BDF") and blocks is not None:
        options["jac_sparsity"] = _sparsity(blocks)
    with warnings.catch_warnings(record=True) as said:
        # LSODA says why it failed in a warning
        warnings.simplefilter("always")
        solver = getattr(solvers, method)(inside, span[0], np.array(y, np.float64), span[1], **options)
        while True:
            watch(float(solver.t), solver.y, int(solver.njev))
            if solver.status != "running":
                return np.asarray(solver.y)
            message = solver.step()
            if solver.status == "failed":
                heard = "; ".join(dict.fromkeys(str(warning.message) for warning in said))
                raise GaveUpError(" ".join(filter(None, (message, heard))) or "the step size became too small")


def _sparsity(blocks: NDArray[np.int64]) -> Any:
    from scipy.sparse import csc_matrix

    return csc_matrix(blocks[:, None] == blocks[None, :])


def _scipy() -> Any:
    try:
        import scipy.integrate
    except ImportError as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "scipy":
            raise MissingExtraError(
                "the driver `ode` needs a package that is not installed",
                got="no module scipy",
                expected="scipy 1.11 or later",
                fix="pip install 'dpmrt[ode]'",
            ) from None
        raise BackendError(
            "scipy is installed but cannot be loaded",
            got=error,
            fix="pip install --force-reinstall 'dpmrt[ode]'",
        ) from error
    return scipy.integrate
