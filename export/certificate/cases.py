"""The single calls that a bundle is held against torch in: over shapes, times and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch

from dpmrt.engines import NEGATIVE, Axis, Manifest
from dpmrt.export.certificate.conditions import SEEDS, opposed_roles
from dpmrt.export.interfaces import Interface
from dpmrt.solvers_np.from_diffusers.own_schedule import OWN_SCHEDULE, read_own_schedule

_BATCHES = (1, 3)
_FRACTION = 0.37
_TRAIN_TIMES = 1000


@dataclass(frozen=True)
class Case:
    """One call: sizes of the open axes, the times of its rows, and a tensor for every role that the graph takes."""

    sizes: dict[str, int]
    times: tuple[float, ...]
    seed: int
    tensors: Mapping[str, torch.Tensor]

    def __str__(self) -> str:
        shape = ", ".join(f"{name} {size}" for name, size in self.sizes.items())
        return f"{shape + ', ' if shape else ''}t = {', '.join(f'{t:g}' for t in self.times)}"


def make_cases(
    manifest: Manifest,
    interface: Interface,
    *,
    seed: int,
    times: tuple[float, ...],
    guidance: float | None,
    sizes: Mapping[str, int] | None = None,
) -> list[Case]:
    """Return the calls: at the first shape all four `times`, at each other shape two calls with rows of several.

    `sizes` are those of the samples to be made, for axes whose usual sizes they are not.
    """
    time = manifest.unet.input("timestep")
    if time is not None and "int" in time.dtype:
        times = tuple(float(round(t)) for t in times)
    first, *others = case_shapes(interface, sizes)
    plan = [(first, start) for start in range(len(times))] + [(shape, s) for shape in others for s in (1, 3)]
    return [
        _case(manifest, interface, shape, times[start:] + times[:start], (seed + number) % SEEDS, guidance)
        for number, (shape, start) in enumerate(plan)
    ]


def call_times(scheduler: Mapping[str, Any]) -> tuple[float, ...]:
    """Return four times of what a scheduler config is for: the first, one close to it, the middle, the last.

    >>> call_times({"_class_name": "DDIMScheduler"})
    (0.0, 0.37, 499.0, 999.0)
    """
    count = scheduler.get("num_train_timesteps", _TRAIN_TIMES)
    if scheduler.get("_class_name") == OWN_SCHEDULE:
        schedule = read_own_schedule(scheduler)
        if schedule.train_steps is None:
            low, high = schedule.t_range
            return low, low + (high - low) * _FRACTION / _TRAIN_TIMES, (low + high) / 2, high
        count = schedule.train_steps
    last = float(int(count) - 1)
    return 0.0, _FRACTION, float(int(last / 2)), last


def case_shapes(interface: Interface, sizes: Mapping[str, int] | None = None) -> list[dict[str, int]]:
    """Return sizes of the open axes: batches of 1 and 3 at the usual size, and each other axis at another size."""
    usual = {**interface.sizes(), **(sizes or {})}
    if "batch" not in usual:
        shapes = [usual]
    else:
        taken = [batch for batch in _BATCHES if interface.axes["batch"].axis.takes(batch)]
        shapes = [{**usual, "batch": batch} for batch in taken or [usual["batch"]]]
    for name, entry in interface.axes.items():
        if name == "batch":
            continue
        if (size := another_size(msgspec.structs.replace(entry.axis, opt=usual[name]))) is not None:
            shapes.append({**shapes[0], name: size})
    return shapes


def another_size(axis: Axis) -> int | None:
    """Return a size beside the usual one: half of it, or else the next.

    >>> another_size(Axis(opt=64, min=8, multiple=8)), another_size(Axis(opt=8, min=8, multiple=8, max=16))
    (32, 16)
    """
    half, step = axis.opt // 2 // axis.multiple * axis.multiple, axis.multiple
    wished = (half, axis.opt - step, axis.opt + step)
    return next((size for size in wished if size > 0 and axis.takes(size)), None)


def _case(
    manifest: Manifest,
    interface: Interface,
    sizes: dict[str, int],
    times: tuple[float, ...],
    seed: int,
    guidance: float | None,
) -> Case:
    tensors = interface.examples(seed=seed, **sizes)
    rows = tensors["timestep"].numel()
    row_times = tuple(times[row % len(times)] for row in range(rows))
    tensors["timestep"] = torch.tensor(row_times, dtype=torch.float32).reshape(tensors["timestep"].shape)
    scale = manifest.unet.input("guidance_scale")
    if scale is not None and guidance is not None:
        other = interface.examples(seed=(seed + 1) % SEEDS, **sizes)
        for role in opposed_roles(manifest):
            tensors[NEGATIVE + role] = null_of(manifest, role, other[role])
        size = [axis if isinstance(axis, int) else len(tensors["sample"]) for axis in scale.shape]
        tensors["guidance_scale"] = torch.full(size, guidance)
    return Case(sizes, row_times, seed, tensors)


def null_of(manifest: Manifest, role: str, other: torch.Tensor) -> torch.Tensor:
    """Return what guidance moves away from: the label for no class, or else another draw."""
    setup = manifest.guidance
    return torch.full_like(other, setup.null_label) if role == "class_labels" and setup else other
