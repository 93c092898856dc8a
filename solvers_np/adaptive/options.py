"""What an adaptive run may be told: tolerances, the control of the step size, the bound on network calls."""

from __future__ import annotations

import dataclasses

from dpmrt.errors import OptionError
from dpmrt.solvers_np.options import finite_number, one_of, whole
from dpmrt.solvers_np.solvers.dpm_terms import SOLVER_TYPES
from dpmrt.solvers_np.solvers.limits import limit_x0

CONTROLLERS = ("lu", "pid")
NORMS = ("max", "rms")
ON_BUDGET = ("error", "finish")

#: what each controller has to itself, with the defaults of the authors' code and of k-diffusion
_LU = {"theta": 0.9}
_PID = {"pcoeff": 0.0, "icoeff": 1.0, "dcoeff": 0.0, "accept_safety": 0.81}


@dataclasses.dataclass(frozen=True)
class AdaptiveOptions:
    """The options of an adaptive run; they are checked when they are made.

    A step is accepted where its error, relative to max(atol, rtol |x|) entry by entry, is at most 1: of each sample
    the root of the mean square, of the batch the largest (`norm` "max") or the root of their mean square ("rms").
    `h_init` is the first step in lambda. `controller` is the authors' ("lu", with `theta`) or k-diffusion's ("pid",
    with `pcoeff`, `icoeff`, `dcoeff` and `accept_safety`).

    No more than `max_calls` network calls are made. `on_budget` says what becomes of a run for which they are too
    few: "error" stops it, "finish" takes no step shorter than the calls that are left can pay for.

    After `patience` rejections in a row DPM-Solver-23 goes on as -12, until as many steps have been accepted.

    >>> AdaptiveOptions(rtol=0.01).settled("theta")
    0.9
    """

    t_start: float | None = None
    t_end: float | None = None
    h_init: float = 0.05
    atol: float = 0.0078
    rtol: float = 0.05
    norm: str = "max"
    controller: str = "lu"
    theta: float | None = None
    pcoeff: float | None = None
    icoeff: float | None = None
    dcoeff: float | None = None
    accept_safety: float | None = None
    patience: int = 5
    max_calls: int = 1000
    on_budget: str = "error"
    solver_type: str = "midpoint"
    denoise_to_zero: bool = False
    clip: float | None = None
    threshold: float | None = None
    threshold_max: float = 1.0

    def __post_init__(self) -> None:
        one_of("controller", self.controller, CONTROLLERS)
        one_of("norm", self.norm, NORMS)
        one_of("on_budget", self.on_budget, ON_BUDGET)
        one_of("solver_type", self.solver_type, SOLVER_TYPES)
        _number("h_init", self.h_init, above=0.0)
        _number("atol", self.atol, above=0.0)
        _number("rtol", self.rtol, least=0.0)
        whole("patience", self.patience, 1)
        whole("max_calls", self.max_calls, 1 + self.denoise_to_zero)
        limit_x0(self.clip, self.threshold, self.threshold_max)
        self._check_controller()

    def _check_controller(self) -> None:
        own, others = (_LU, _PID) if self.controller == "lu" else (_PID, _LU)
        if foreign := [name for name in others if getattr(self, name) is not None]:
            raise OptionError(
                f"controller {self.controller!r} has no option of this name",
                got=", ".join(foreign),
                expected=", ".join(own),
                fix=f"leave it out, or choose controller={'pid' if self.controller == 'lu' else 'lu'!r}",
            )
        for name in own:
            if getattr(self, name) is not None:
                _number(name, getattr(self, name))
        if self.controller == "lu":
            _number("theta", self.settled("theta"), above=0.0, below=1.0)
        else:
            _number("accept_safety", self.settled("accept_safety"), above=0.0, below=1.0)

    def settled(self, name: str) -> float:
        """Return an option of the controller, or its default."""
        given = getattr(self, name)
        return float({**_LU, **_PID}[name] if given is None else given)


def _number(
    name: str, value: object, *, above: float | None = None, least: float | None = None, below: float | None = None
) -> None:
    number = finite_number(value)
    bounds = [
        *([f"above {above:g}"] if above is not None else []),
        *([f"at least {least:g}"] if least is not None else []),
        *([f"below {below:g}"] if below is not None else []),
    ]
    fits = number is not None and not (
        (above is not None and number <= above)
        or (least is not None and number < least)
        or (below is not None and number >= below)
    )
    if not fits:
        raise OptionError(
            f"{name} is out of range", got=repr(value), expected=" ".join(["a finite number", " and ".join(bounds)])
        )
