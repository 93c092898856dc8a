"""Drivers: samplers without a fixed grid, which ask the network when and where they find it needed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from dpmrt.errors import OptionError
from dpmrt.runtime.drivers.base import Driven, Driver, Report
from dpmrt.runtime.drivers.model import NetworkModel
from dpmrt.solvers_np import SOLVERS, sampler_called, unknown_sampler

__all__ = ["DRIVERS", "Driven", "Driver", "NetworkModel", "Report", "check_sampler", "find_driver", "refuse_given"]

#: by the name that `solver` takes: module and function, imported when asked for
DRIVERS: Mapping[str, tuple[str, str]] = {
    "ode": ("dpmrt.runtime.drivers.ode", "sample_ode"),
    "dpm-solver-12": ("dpmrt.runtime.drivers.adaptive", "DPM_SOLVER_12"),
    "dpm-solver-23": ("dpmrt.runtime.drivers.adaptive", "DPM_SOLVER_23"),
    "dpm-solver++12": ("dpmrt.runtime.drivers.adaptive", "DPM_SOLVER_PP_12"),
    "dpm-solver++23": ("dpmrt.runtime.drivers.adaptive", "DPM_SOLVER_PP_23"),
}


def find_driver(name: object) -> Driver | None:
    """Return the driver of this name, or None where there is none."""
    if not isinstance(name, str) or name not in DRIVERS:
        return None
    module, function = DRIVERS[name]
    driver: Driver = getattr(import_module(module), function)
    return driver


def check_sampler(name: object) -> None:
    """Refuse a name that is neither a solver's nor a driver's. Editing knows more, as those of inverses."""
    known = {**SOLVERS, **DRIVERS}
    if isinstance(name, str) and name not in known and sampler_called(name) is None:
        raise unknown_sampler(name, known)


def refuse_given(**arguments: object) -> None:
    """Refuse what a driver has no use for."""
    if given := [name for name, value in arguments.items() if value is not None]:
        raise OptionError(
            "a solver without a fixed grid takes no such argument",
            got=", ".join(given),
            expected=f"none of {', '.join(arguments)}",
            fix="leave it out; its own options set tolerances and bounds",
        )
