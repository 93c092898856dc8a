"""The named time grids: functions of (schedule, steps) and their options. GRIDS lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.grids import noise_grids, time_grids
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.options import call_with_options, choose, whole
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule

#: "lu" is diffusers' name for even steps in lambda, which "exponential" takes too
GRIDS: Mapping[str, Callable[..., Grid]] = MappingProxyType(
    {
        "uniform": time_grids.uniform,
        "logsnr": time_grids.logsnr,
        "quadratic": time_grids.quadratic,
        "linspace": time_grids.linspace,
        "leading": time_grids.leading,
        "trailing": time_grids.trailing,
        "times": time_grids.times,
        "karras": noise_grids.karras,
        "exponential": noise_grids.exponential,
        "polyexponential": noise_grids.polyexponential,
        "lu": noise_grids.exponential,
        "beta": noise_grids.beta,
        "ays": noise_grids.ays,
        "sigmas": noise_grids.sigmas,
    }
)


def make_grid(name: str, schedule: NoiseSchedule, steps: int, **options: Any) -> Grid:
    """Make a grid of `steps` intervals by name.

    >>> from dpmrt.solvers_np import make_schedule
    >>> make_grid("trailing", make_schedule("linear"), 4).t.tolist()
    [999.0, 749.0, 499.0, 249.0]
    """
    factory = choose("grid", name, GRIDS)
    if not isinstance(schedule, NoiseSchedule):
        raise OptionError(
            "the schedule of a grid is no NoiseSchedule", got=repr(schedule), expected="as make_schedule('linear')"
        )
    return call_with_options(f"grid {name!r}", factory, options, schedule, whole("steps", steps, 1))
