"""A scheduler object, run on basis vectors in place of latents: its weights in one pass, checked on random data."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpmrt.errors import TraceError
from dpmrt.export.trace_torch import NormalDraws, widened, widened_copy

Floats = NDArray[np.float64]
Span = tuple[float, float]

#: not square, and more channels than any scheduler cuts off, so that whatever is not elementwise shows
_SHAPE = (2, 4, 3, 5)
#: words in the names of options that make a scheduler limit its samples
_LIMITS = ("clip", "threshold")


@dataclasses.dataclass(frozen=True)
class Recording:
    """What a scheduler did: the state at each call and at the end, as weights of {x_T, outputs, draws}.

    `spans` has, for draws asked for by their noise levels, the noise's share of the variance at both.
    """

    times: Floats
    in_scale: Floats
    states: Floats
    spans: tuple[Span | None, ...]
    scheduler: Any

    @property
    def calls(self) -> int:
        """Return the number of network calls."""
        return len(self.times)


@dataclasses.dataclass(frozen=True)
class _Trajectory:
    """States at each call and at the end, flat, and the network's inputs there."""

    states: list[Floats]
    inputs: list[Floats]
    spans: list[Span | None]


class Tracer:
    """Runs fresh copies of one scheduler object, with data and noise that are handed in."""

    def __init__(
        self,
        scheduler: Any,
        steps: int | None,
        timestep_options: Mapping[str, Any],
        step_options: Mapping[str, Any],
        double: bool,
    ) -> None:
        missing = [name for name in ("set_timesteps", "step") if not callable(getattr(scheduler, name, None))]
        if missing:
            raise TraceError(
                f"{type(scheduler).__name__} has not the interface of a scheduler",
                got=f"no {' and no '.join(missing)}",
                expected="set_timesteps, timesteps and step, as diffusers' schedulers have",
            )
        self._original, self._double, self._step_options = scheduler, double, dict(step_options)
        self._timestep_options = {**({} if steps is None else {"num_inference_steps": steps}), **timestep_options}
        self.prepared = self._prepare()
        timesteps = getattr(self.prepared, "timesteps", None)
        self.times = np.array([] if timesteps is None else [float(t) for t in timesteps])
        if not self.times.size or not np.isfinite(self.times).all():
            raise TraceError(
                "set_timesteps left no usable timesteps", got=timesteps, expected="a row of finite numbers"
            )

    def record(self) -> Recording:
        """Return the weights, having checked that they predict what the scheduler does with random data."""
        calls, rng = len(self.times), np.random.default_rng(0)
        x, outputs = rng.standard_normal(_SHAPE), rng.standard_normal((calls, *_SHAPE))
        noises: list[Floats] = []

        def fresh() -> Floats:
            drawn: Floats = rng.standard_normal(_SHAPE)
            noises.append(drawn)
            return drawn

        real = self._run(x, outputs, fresh)
        basis = np.eye(1 + calls + len(noises)).reshape(-1, 1, 1, 1, 1 + calls + len(noises))
        draws: Iterator[Floats] = iter(basis[1 + calls :])

        def unit() -> Floats:
            draw = next(draws, None)
            if draw is None:
                raise TraceError("the scheduler draws noise or not depending on the data", got="one draw more")
            return draw

        pure = self._run(basis[0], basis[1 : 1 + calls], unit)
        data = np.stack([x, *outputs, *noises]).reshape(len(basis), -1)
        self._check(pure, real, data)
        in_scale = np.array([self._scale(k, pure.states[k], pure.inputs[k]) for k in range(calls)])
        return Recording(self.times, in_scale, np.stack(pure.states), tuple(pure.spans), self.prepared)

    def _run(self, x: Floats, outputs: Floats, draw: Callable[[], Floats]) -> _Trajectory:
        scheduler, state = self._prepare(), torch.from_numpy(x.copy())
        shape, found = tuple(x.shape), _Trajectory([x.reshape(-1)], [], [])
        scale = getattr(scheduler, "scale_model_input", None)

        def noise(wanted: tuple[int, ...]) -> torch.Tensor:
            if wanted != shape:
                raise TraceError("noise of another shape than the sample's", got=wanted, expected=shape)
            found.spans.append(None)
            return torch.from_numpy(draw().copy())

        def over(sigma: Any, sigma_next: Any) -> torch.Tensor:
            z = noise(shape)
            found.spans[-1] = (_share(float(sigma)), _share(float(sigma_next)))
            return z

        if hasattr(scheduler, "noise_sampler"):
            scheduler.noise_sampler = over
        with self._environment(scheduler), NormalDraws(noise):
            for index, t in enumerate(scheduler.timesteps):
                with self._named(index):
                    seen = state if scale is None else scale(state, t)
                    result = scheduler.step(torch.from_numpy(outputs[index].copy()), t, state, **self._step_options)
                    state = _prev_sample(result)
                    if tuple(state.shape) != shape:
                        raise TraceError("step changed the sample's shape", got=tuple(state.shape), expected=shape)
                found.inputs.append(_flat(seen))
                found.states.append(_flat(state))
        return found

    def _prepare(self) -> Any:
        try:
            scheduler = widened_copy(self._original) if self._double else copy.deepcopy(self._original)
            with self._environment(scheduler):
                scheduler.set_timesteps(**self._timestep_options)
                if hasattr(scheduler, "set_begin_index"):
                    scheduler.set_begin_index(0)
        except Exception as error:
            raise TraceError(
                f"{type(self._original).__name__} could not be set up",
                got=f"{type(error).__name__}: {error}",
                expected=f"set_timesteps to take {self._timestep_options or 'no arguments'}",
            ) from error
        return scheduler

    @contextlib.contextmanager
    def _environment(self, scheduler: Any) -> Iterator[None]:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with widened(scheduler) if self._double else contextlib.nullcontext():
                yield

    @contextlib.contextmanager
    def _named(self, index: int) -> Iterator[None]:
        try:
            yield
        except TraceError as error:
            error.got = f"{error.got}, in {self._step(index)}"
            raise
        except Exception as error:
            raise TraceError(
                f"{type(self._original).__name__} failed in a step",
                got=f"{type(error).__name__}: {error}, in {self._step(index)}",
                fix=self._advice(),
            ) from error

    def _check(self, pure: _Trajectory, real: _Trajectory, data: Floats) -> None:
        """Refuse a scheduler whose states are not the sums that its weights predict."""
        name, tolerance = type(self._original).__name__, 1e-9 if self._double else 1e-4
        for index in range(len(self.times)):
            weights, got = pure.states[index + 1], real.states[index + 1]
            if not np.isfinite(weights).all() or not np.isfinite(got).all():
                raise TraceError(f"{name} computes NaN or infinity", got=self._step(index), expected="finite numbers")
            want = weights @ data
            drift = float(np.linalg.norm(got - want) / max(np.linalg.norm(want), np.finfo(np.float64).tiny))
            if drift > tolerance:
                raise TraceError(
                    f"{name} is not linear",
                    got=f"a state {drift:.1e} off what superposition predicts, after {self._step(index)}",
                    expected=f"at most {tolerance:.0e}",
                    fix=self._advice(),
                )
        if len(pure.spans) != len(real.spans):
            raise TraceError(f"{name} draws noise or not depending on the data", got=len(pure.spans))

    def _scale(self, index: int, state: Floats, seen: Floats) -> float:
        scale = float(seen @ state / (state @ state)) if state.any() else 1.0
        if not np.linalg.norm(seen - scale * state) <= 1e-6 * np.linalg.norm(seen):
            raise TraceError(
                "scale_model_input does more than multiply by a number",
                got=self._step(index),
                expected="the sample times one number",
            )
        return scale

    def _step(self, index: int) -> str:
        return f"step {index + 1} of {len(self.times)}, t = {self.times[index]:g}"

    def _advice(self) -> str:
        """Return what to change: the limits that are on, or else what to look for."""
        config = getattr(self._original, "config", None)
        options = {**getattr(self._original, "__dict__", {}), **(config if isinstance(config, Mapping) else {})}
        options |= self._step_options
        fixes = [f"{name}=False" for name, value in options.items() if value is True and _limits(name)]
        if str(options.get("variance_type")).startswith("learned"):
            fixes.append("variance_type of another kind (a learned variance splits the network's output)")
        if fixes:
            return "trace it with " + ", ".join(fixes)
        return (
            "switch off what clips, thresholds or normalises inside step, or mixes elements of the sample; "
            "noise must come from torch.randn, torch.randn_like or randn_tensor"
        )


def _limits(option: str) -> bool:
    return any(word in option for word in _LIMITS)


def _prev_sample(result: Any) -> torch.Tensor:
    found = getattr(result, "prev_sample", None)
    if found is None:
        found = result[0] if isinstance(result, tuple) else result
    if not isinstance(found, torch.Tensor):
        raise TraceError("step returned no tensor", got=type(found).__name__, expected="prev_sample, or a tuple")
    return found


def _flat(tensor: torch.Tensor) -> Floats:
    return np.array(tensor.detach().reshape(-1).to(torch.float64).numpy())


def _share(sigma: float) -> float:
    """Return the noise's share of the variance for a state x0 + sigma eps."""
    return sigma**2 / (1 + sigma**2)
