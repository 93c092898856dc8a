"""Samplers as data: schedules, grids and solvers that compile to a StepPlan, and the executor that runs it."""

from dpmrt.solvers_np.compile import compile_plan
from dpmrt.solvers_np.executor import BindableModel, Callback, Executor, StepEvent, run_plan
from dpmrt.solvers_np.from_diffusers import plan_from_diffusers, schedule_from_diffusers
from dpmrt.solvers_np.grids import GRIDS, Grid, make_grid
from dpmrt.solvers_np.noise import NoiseSource, NumpyNoise, RecordedNoise, TorchCPUNoise, randn
from dpmrt.solvers_np.plan import Clip, DynamicThreshold, StepPlan
from dpmrt.solvers_np.rows import RowList
from dpmrt.solvers_np.schedule import NoiseSchedule
from dpmrt.solvers_np.schedules import SCHEDULES, make_schedule
from dpmrt.solvers_np.solvers import SOLVERS

__all__ = [
    "GRIDS",
    "SCHEDULES",
    "SOLVERS",
    "BindableModel",
    "Callback",
    "Clip",
    "DynamicThreshold",
    "Executor",
    "Grid",
    "NoiseSchedule",
    "NoiseSource",
    "NumpyNoise",
    "RecordedNoise",
    "RowList",
    "StepEvent",
    "StepPlan",
    "TorchCPUNoise",
    "compile_plan",
    "make_grid",
    "make_schedule",
    "plan_from_diffusers",
    "randn",
    "run_plan",
    "schedule_from_diffusers",
]
