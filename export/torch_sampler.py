"""The trajectory that the torch network takes, with every number that another sampler needs to repeat it."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpmrt.errors import NonFiniteError, VerificationError
from dpmrt.export.schedulers import scheduler_class
from dpmrt.export.sources import Source
from dpmrt.solvers_np import StepEvent, StepPlan, make_noise, run_plan

Array = NDArray[np.float32]
Tensors = Mapping[str, torch.Tensor]

#: the condition that stands behind the state's channels in the network's sample
EXTRA_CHANNELS = "extra_channels"


@dataclass(frozen=True)
class Condition:
    """What the network is told beside state and time, by role; with `guidance`, classifier-free against `null`."""

    wanted: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    null: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    guidance: float | None = None


@dataclass(frozen=True)
class Trajectory:
    """Initial noise, later noises in the order in which they were drawn, and time and state of each step."""

    x_T: Array
    noise: Array | None
    times: tuple[float, ...]
    states: tuple[Array, ...]


def sample_with_torch(
    source: Source,
    scheduler_config: Mapping[str, Any],
    *,
    steps: int,
    batch: int,
    seed: int,
    condition: Condition | None = None,
    sizes: Mapping[str, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trajectory:
    """Sample as a diffusers pipeline does, and record it; `sizes` are those of open axes that are not the usual."""
    scheduler = scheduler_class(scheduler_config).from_config(dict(scheduler_config))
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *source.interface.state_shape(**(sizes or {})))
    x_T = torch.randn(shape, generator=generator)
    x = x_T * getattr(scheduler, "init_noise_sigma", 1.0)  # flow-matching schedulers have none
    options = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    predict = step_predictor(source, condition or Condition())
    scale = getattr(scheduler, "scale_model_input", lambda sample, t: sample)
    states: list[Array] = []
    times = [float(t) for t in scheduler.timesteps]
    with torch.inference_mode(), _recorded_noise(scheduler) as noises:
        for index, t in enumerate(scheduler.timesteps):
            output = predict(scale(x, t), t)
            x = scheduler.step(output, t, x, **options).prev_sample
            states.append(x.numpy().astype(np.float32))
            if progress:
                progress(index + 1, len(times))
    if not np.isfinite(states[-1]).all():
        raise _not_finite(f"{scheduler_config['_class_name']} with {steps} steps")
    return Trajectory(x_T.numpy(), np.stack(noises) if noises else None, tuple(times), tuple(states))


def follow_with_torch(
    source: Source,
    plan: StepPlan,
    *,
    batch: int,
    seed: int,
    condition: Condition | None = None,
    sizes: Mapping[str, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trajectory:
    """Follow a plan with the torch network, by the executor for NumPy; for what diffusers has no scheduler for."""
    axis = source.interface.channel_axis
    shape = (batch, *source.interface.state_shape(**(sizes or {})))
    stream = make_noise("torch-cpu", seed)
    x_T, noises = stream.normal(shape), list[Array]()
    predict = step_predictor(source, condition or Condition())
    # what was learned of the variance lies behind, and is left out where the plan does not read it
    read = (*(slice(None),) * axis, slice(shape[axis] * plan.parts))
    times: list[float] = []
    states: list[Array] = []

    def model(x: NDArray[Any], t: NDArray[Any]) -> NDArray[Any]:
        output: NDArray[Any] = predict(torch.from_numpy(x), torch.tensor(float(t[0])))[read].numpy()
        return output

    def draw(shape: tuple[int, ...]) -> Array:
        noises.append(stream.normal(shape))
        return noises[-1]

    def keep(event: StepEvent) -> None:
        times.append(event.t)
        states.append(np.array(event.x, np.float32))
        if progress:
            progress(event.index + 1, event.total)

    try:
        with torch.inference_mode():
            noise = draw if plan.stochastic else None
            run_plan(plan, model, x_T * np.float32(plan.init_scale), noise=noise, callback=keep)
    except NonFiniteError as error:
        raise _not_finite(str(error.got)) from error
    return Trajectory(x_T, np.stack(noises) if noises else None, tuple(times), tuple(states))


def _not_finite(got: str) -> VerificationError:
    return VerificationError(
        "torch's own sample holds NaN or infinity",
        got=got,
        expected="finite numbers",
        fix="choose another number of steps",
    )


def predict_guided(source: Source, wanted: Tensors, null: Tensors, scale: float) -> torch.Tensor:
    """Return what classifier-free guidance makes of the network; a variance that it learned is not guided."""
    both = {role: torch.cat([null[role], value]) if value.ndim else value for role, value in wanted.items()}
    unguided, guided = source.predict(both).chunk(2)
    interface = source.interface
    axis = interface.channel_axis
    sample = interface.input("sample")
    taken = sample.shape[axis] if sample else None
    if not isinstance(taken, int) or guided.shape[axis] <= taken:
        return unguided + scale * (guided - unguided)
    base, moved = unguided.narrow(axis, 0, taken), guided.narrow(axis, 0, taken)
    variance = guided.narrow(axis, taken, guided.shape[axis] - taken)
    return torch.cat([base + scale * (moved - base), variance], axis)


def step_predictor(source: Source, condition: Condition) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return predict(x, t): the network, told a condition and guided as it says."""
    wanted = {role: torch.from_numpy(value) for role, value in condition.wanted.items()}
    null = {role: torch.from_numpy(value) for role, value in condition.null.items()}
    scale = condition.guidance
    time = source.interface.input("timestep")

    def inputs(x: torch.Tensor, t: torch.Tensor, told: Tensors) -> dict[str, torch.Tensor]:
        others = dict(told)
        extra = others.pop(EXTRA_CHANNELS, None)
        sample = x if extra is None else torch.cat([x, extra], source.interface.channel_axis)
        moment = t.to(torch.float32).expand(len(x) if time and time.shape else ())
        return {"sample": sample, "timestep": moment, **others}

    if scale is None:
        return lambda x, t: source.predict(inputs(x, t, wanted))
    return lambda x, t: predict_guided(source, inputs(x, t, wanted), inputs(x, t, null), scale)


@contextlib.contextmanager
def _recorded_noise(scheduler: Any) -> Iterator[list[Array]]:
    """Keep what the scheduler draws; all of diffusers' draw through `randn_tensor` of their own module."""
    noises: list[Array] = []
    module: Any = sys.modules[type(scheduler).__module__]
    draw = getattr(module, "randn_tensor", None)
    if draw is None:
        yield noises
        return

    def recording(*args: Any, **kwargs: Any) -> torch.Tensor:
        noise = draw(*args, **kwargs)
        noises.append(noise.numpy().astype(np.float32))
        return noise

    module.randn_tensor = recording
    try:
        yield noises
    finally:
        module.randn_tensor = draw
