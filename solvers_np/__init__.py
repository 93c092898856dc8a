"""Samplers as data: schedules, grids and solvers that compile to a StepPlan, and the executor that runs it."""

from dpmrt.solvers_np.adaptive import ADAPTIVE, Adaptive, AdaptiveOptions, AdaptiveReport, run_adaptive
from dpmrt.solvers_np.compile import compile_plan
from dpmrt.solvers_np.corrections import CorrectState, CorrectX0
from dpmrt.solvers_np.execution.events import Callback, StepEvent
from dpmrt.solvers_np.execution.executor import BindableModel, Executor, run_plan
from dpmrt.solvers_np.execution.hooks import CallView, Hook, RunView, StateView
from dpmrt.solvers_np.from_diffusers import (
    plan_from_diffusers,
    prediction_from_diffusers,
    schedule_from_diffusers,
)
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.grids.named import GRIDS, make_grid
from dpmrt.solvers_np.inverse import compile_inverse
from dpmrt.solvers_np.levels import Level, Levels
from dpmrt.solvers_np.names import sampler_called, unknown_sampler
from dpmrt.solvers_np.noise import (
    GPUS,
    SOURCES,
    BrownianPath,
    IntervalNoise,
    NoiseSource,
    NumpyNoise,
    PerSample,
    RecordedNoise,
    TorchCPUNoise,
    TorchCUDANoise,
    make_noise,
    randn,
)
from dpmrt.solvers_np.plans.instructions import (
    Clip,
    Discard,
    DynamicThreshold,
    Langevin,
    LearnedRange,
    LearnedVariance,
)
from dpmrt.solvers_np.plans.mix import Mix
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.repaint import repaint
from dpmrt.solvers_np.plans.rows import RowList
from dpmrt.solvers_np.plans.writer import PlanWriter
from dpmrt.solvers_np.schedules.flow import flow_mu
from dpmrt.solvers_np.schedules.named import SCHEDULES, make_schedule
from dpmrt.solvers_np.schedules.schedule import NoiseSchedule
from dpmrt.solvers_np.solver import Case, Solver
from dpmrt.solvers_np.solvers import SOLVERS

__all__ = [
    "ADAPTIVE",
    "Adaptive",
    "AdaptiveOptions",
    "AdaptiveReport",
    "BindableModel",
    "BrownianPath",
    "CallView",
    "Callback",
    "Case",
    "Clip",
    "CorrectState",
    "CorrectX0",
    "Discard",
    "DynamicThreshold",
    "Executor",
    "GPUS",
    "GRIDS",
    "Grid",
    "Hook",
    "IntervalNoise",
    "Langevin",
    "LearnedRange",
    "LearnedVariance",
    "Level",
    "Levels",
    "Mix",
    "NoiseSchedule",
    "NoiseSource",
    "NumpyNoise",
    "PerSample",
    "PlanWriter",
    "RecordedNoise",
    "RowList",
    "RunView",
    "SCHEDULES",
    "SOLVERS",
    "SOURCES",
    "Solver",
    "StateView",
    "StepEvent",
    "StepPlan",
    "TorchCPUNoise",
    "TorchCUDANoise",
    "compile_inverse",
    "compile_plan",
    "flow_mu",
    "make_grid",
    "make_noise",
    "make_schedule",
    "plan_from_diffusers",
    "prediction_from_diffusers",
    "randn",
    "repaint",
    "run_adaptive",
    "run_plan",
    "sampler_called",
    "schedule_from_diffusers",
    "unknown_sampler",
]
