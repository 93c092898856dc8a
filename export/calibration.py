"""Whole trajectories to try a precision on: a scheduler, made-up conditions, a start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.export.interfaces import Interface
from dpmrt.export.onnx_files import small_sizes
from dpmrt.solvers_np import StepPlan, plan_from_diffusers, randn, run_plan

_SEED = 20
_LARGE_PARAMETERS = 200_000_000
_LARGE_STEPS = 2

Array = NDArray[Any]
Feeds = dict[str, Array]


@dataclass(frozen=True)
class Trajectory:
    """State and time of each call, the final sample, and the first call that gave no finite numbers, if any."""

    calls: list[tuple[Array, Array]]
    last: Array
    lost: int | None

    def psnr(self, got: Trajectory) -> float:
        """Return the PSNR of another final sample in dB; minus infinity if a call on the way to it was lost."""
        if got.lost is not None or not np.isfinite(got.last).all():
            return float("-inf")
        rmse = float(np.sqrt(np.mean(np.square(got.last.astype(np.float64) - self.last))))
        width = float(self.last.max() - self.last.min())
        return float("inf") if rmse == 0 else 20 * float(np.log10(width / rmse)) if width > 0 else 0.0


@dataclass(frozen=True)
class Calibration:
    """Trajectories to try a precision on: the plan, the conditions, the time's shape, and where it starts."""

    plan: StepPlan
    x: Array
    time: Array
    feeds: Feeds
    extra: Array | None
    channel_axis: int

    def call(self, session: Any, x: Array, t: Array) -> Array:
        """Run a network once."""
        result: Array = session.run(None, self.inputs(x, t))[0]
        return result

    def inputs(self, x: Array, t: Array) -> Feeds:
        """Return what the graph is fed with at one state and time."""
        sample = x if self.extra is None else np.concatenate([x, self.extra], axis=self.channel_axis)
        time = np.full_like(self.time, np.ravel(t)[0])
        return {**self.feeds, "sample": sample.astype(np.float32), "timestep": time}

    def trajectory(self, session: Any) -> Trajectory:
        """Sample once."""
        calls: list[tuple[Array, Array]] = []
        lost: list[int] = []

        def model(x: Array, t: Array) -> Array:
            calls.append((x.copy(), np.asarray(t).copy()))
            output = self.call(session, x, t)
            if np.isfinite(output).all():
                return output
            lost.append(len(calls) - 1)
            # The executor would refuse these in the words of a sampling user.
            return np.nan_to_num(output, nan=0.0, posinf=1e4, neginf=-1e4)

        last = run_plan(self.plan, model, self.x.copy())
        return Trajectory(calls, last, lost[0] if lost else None)


def calibration(
    interface: Interface, scheduler_config: Mapping[str, Any], *, parameters: int, steps: int
) -> Calibration:
    """Return what to calibrate with: the scheduler, made-up conditions, and small sizes for large networks."""
    large = parameters > _LARGE_PARAMETERS
    # Of two labels, the last ones, one is seldom that of no class.
    batched = interface.axes.get("batch")
    sizes = (
        small_sizes(interface, 1) if large else interface.sizes(batch=2 if batched and batched.axis.takes(2) else 1)
    )
    try:
        plan = plan_from_diffusers(scheduler_config, _LARGE_STEPS if large else steps)
    except OptionError:
        plan = plan_from_diffusers(scheduler_config, steps)
    examples = interface.examples(seed=_SEED, **sizes)
    feeds = {role: tensor.numpy() for role, tensor in examples.items() if role not in ("sample", "timestep")}
    shape = interface.state_shape(**sizes)
    axis = interface.channel_axis
    batch = examples["sample"].shape[0]
    own = shape[axis - 1]
    whole = examples["sample"].numpy()
    extra = np.take(whole, range(own, whole.shape[axis]), axis=axis) if whole.shape[axis] > own else None
    x = randn((batch, *shape), seed=_SEED).astype(np.float32) * np.float32(plan.init_scale)
    return Calibration(plan, x, examples["timestep"].numpy(), feeds, extra, axis)
