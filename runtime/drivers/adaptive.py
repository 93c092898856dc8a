"""DPM-Solver-12 and -23 on a bundle: steps chosen by their error."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError, PartialError
from dpmrt.files import atomic_write
from dpmrt.runtime.drivers.base import Driven
from dpmrt.runtime.drivers.model import NetworkModel
from dpmrt.solvers_np import AdaptiveOptions, AdaptiveReport, Callback, NoiseSource, run_adaptive
from dpmrt.solvers_np.adaptive import start_scale
from dpmrt.solvers_np.options import call_with_options, one_of


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnReport(AdaptiveReport):
    """The report of an adaptive run, which can be drawn."""

    def plot(self, path: str | Path) -> Path:
        """Draw step sizes and errors over lambda to a .png."""
        from dpmrt.runtime.charts import draw_adaptive

        with atomic_write(Path(path)) as stream:
            draw_adaptive(stream, self)
        return Path(path)


class AdaptiveDriver:
    """A driver that runs `run_adaptive` by one of its solvers; options are those of AdaptiveOptions, and `dtype`."""

    def __init__(self, solver: str) -> None:
        self.solver = solver

    def __call__(
        self,
        model: NetworkModel,
        x_T: NDArray[Any],
        *,
        noise: NoiseSource,
        callback: Callback | None = None,
        dtype: str = "float32",
        **options: Any,
    ) -> Driven:
        """Sample from unit noise `x_T`, in float32 or, with `dtype`, in float64."""
        one_of("dtype", dtype, ("float32", "float64"))
        if model.whole_times:
            raise OptionError(
                "the network takes whole timesteps, and adaptive steps lead to others",
                got=self.solver,
                expected="a network whose timestep is a float",
                fix="export the network again with dpmrt, or choose a solver with a grid",
            )
        schedule, settings = model.schedule, call_with_options(f"solver {self.solver!r}", AdaptiveOptions, options)
        x = np.asarray(x_T, dtype) * start_scale(schedule, settings)
        try:
            made = run_adaptive(
                self.solver, model, schedule, x, prediction=model.prediction, callback=callback, **options
            )
        except PartialError as error:
            error.report = _drawn(error.report)
            raise
        return Driven(made.samples, _drawn(made.report))


def _drawn(report: AdaptiveReport) -> DrawnReport:
    return DrawnReport(**vars(report))


DPM_SOLVER_12 = AdaptiveDriver("dpm-solver-12")
DPM_SOLVER_23 = AdaptiveDriver("dpm-solver-23")
DPM_SOLVER_PP_12 = AdaptiveDriver("dpm-solver++12")
DPM_SOLVER_PP_23 = AdaptiveDriver("dpm-solver++23")
