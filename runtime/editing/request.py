"""What the editing functions share: a request in two parts, the plan that starts part-way, and its noise."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.runtime.drivers import find_driver
from dpmrt.runtime.editing.arrays import Floats, check_noise_like
from dpmrt.runtime.pipeline import Pipeline
from dpmrt.solvers_np import NoiseSource, StepPlan, make_noise
from dpmrt.solvers_np.execution.hooks import check_hooks
from dpmrt.solvers_np.noise import as_source

#: arguments of Pipeline.sample that an editing function settles itself
_SETTLED = frozenset({"x_T", "start", "shape", "plan", "batch", "seed", "steps", "solver", "noise"})


#: turns a seed into that of the stream beside
_APART = 0x5BF03635


@dataclass(frozen=True)
class Parts:
    """A request: `sampling` goes to Pipeline.sample, `options` to the solver."""

    sampling: Mapping[str, Any]
    options: Mapping[str, Any]
    hooks: tuple[Any, ...]


def split(request: Mapping[str, Any]) -> Parts:
    """Return what Pipeline.sample takes apart from the options of a solver; refuse what is settled here."""
    known = inspect.signature(Pipeline.sample).parameters
    if taken := sorted(_SETTLED.intersection(request)):
        raise OptionError("an editing function takes no such argument", got=", ".join(taken), fix="leave it out")
    sampling = {name: value for name, value in request.items() if name in known}
    hooks = check_hooks(sampling.pop("hooks", ()))
    return Parts(sampling, {name: value for name, value in request.items() if name not in known}, hooks)


def part_plan(
    pipeline: Pipeline, strength: float, steps: int | None, solver: str | None, options: Mapping[str, Any]
) -> StepPlan:
    """Compile the plan for the last part of the steps, as diffusers' image-to-image pipelines take it."""
    refuse_driver(solver)
    given = {} if strength == 1 else {"strength": strength}
    return pipeline.plan(steps, solver, **options, **given)


def refuse_driver(solver: object) -> None:
    """Refuse a solver that follows no plan."""
    if find_driver(solver) is not None:
        raise OptionError(
            "a solver without a fixed grid cannot edit",
            got=repr(solver),
            expected="a solver that follows a plan",
            fix="choose another with solver=..., --solver",
        )


@dataclass(frozen=True)
class Noises:
    """The initial noise, and the source of what the plan draws later."""

    first: Floats
    later: NoiseSource


def noises(seed: int | Sequence[int], shape: tuple[int, ...], x_T: Any, noise: Any, draws: int) -> Noises:
    """Draw the initial noise unless it is given; the same stream goes on, unless other `noise` is given."""
    stream = make_noise("torch-cpu", seed)
    first = stream.normal(shape) if x_T is None else check_noise_like(x_T, shape)
    return Noises(first, stream if noise is None else as_source(noise, shape, draws))


def stream_beside(seed: int | Sequence[int]) -> NoiseSource:
    """Return the source of what a hook draws.

    It is a stream apart from the plan's: a device draws the plan's noise ahead of the run, and numbers must not
    depend on that.
    """
    if isinstance(seed, (list, tuple, np.ndarray)):
        return make_noise("torch-cpu", [int(each) ^ _APART for each in seed])
    return make_noise("torch-cpu", int(seed) ^ _APART)  # type: ignore[arg-type]


def noised(x0: Floats, z: Floats, level: tuple[float, float]) -> Floats:
    """Return alpha x0 + sigma z."""
    alpha, sigma = (x0.dtype.type(v) for v in level)
    mixed: Floats = alpha * x0 + sigma * z
    return mixed
