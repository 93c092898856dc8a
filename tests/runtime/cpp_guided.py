"""Guided trajectories for the C++ runtime, as Python's executor and guidance give them."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import cpp_golden
import numpy as np
from cpp_golden import SHAPE
from numpy.typing import NDArray

from dpmrt.engines import Network, TensorSpec
from dpmrt.runtime.backends.base import Tensor
from dpmrt.runtime.backends.function import FunctionBackend
from dpmrt.runtime.denoiser import Denoiser
from dpmrt.runtime.guidance import Guidance, Scales
from dpmrt.solvers_np import Executor, StepPlan, make_noise

_SCHEDULES, _UNITS = (None, "linear", "cosine"), ("progress", "time", "sigma")
_EACH = (1.0, 3.5)

#: a plan of cpp_golden, and what is asked of guidance
CASES: dict[str, tuple[str, Guidance]] = {
    "scale": ("dpmsolver++-2", Guidance(4.0)),
    "none": ("ddim", Guidance(0.0)),
    "each": ("unipc", Guidance(_EACH)),
    "rescale": ("dpmsolver++-2", Guidance(5.0, rescale=0.7)),
    "rescale-each": ("euler-ancestral", Guidance(_EACH, rescale=1.0)),
    "interval": ("ddim", Guidance(3.0, interval=(0.25, 0.75))),
    "interval-of-time": ("heun", Guidance(3.0, interval=(200, 700), unit="time", rescale=0.5)),
    "interval-of-sigma": ("dpmsolver++-3-thresholded", Guidance(_EACH, interval=(0.3, 3.0), unit="sigma")),
    "linear": ("ddpm-clip", Guidance(6.0, schedule="linear")),
    "cosine": ("sde-dpmsolver++", Guidance(_EACH, schedule="cosine", interval=(0.0, 0.6))),
    "table": ("ddim", Guidance(schedule=np.array([1.0, 1, 2, 3, 4, 3, 2, 1]))),
    "table-each": ("ddim-eta", Guidance(schedule=np.arange(16.0).reshape(8, 2) / 4, rescale=0.3)),
    "learned-range": ("ddpm-learned-range", Guidance(3.0, interval=(0.0, 0.5))),
}


def _network(dtype: str, parts: int) -> tuple[FunctionBackend, Network]:
    """The network of runtime/cpp/tests/guided.cpp, whose label is 1 with a condition and 0 without."""
    shape = ("batch", *SHAPE[1:])
    out = ("batch", parts * SHAPE[1], *SHAPE[2:])

    def call(x: NDArray[Any], t: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
        made, given = cpp_golden.network(x, np.atleast_1d(t), parts), label == 1
        real = x.dtype.type
        made[given, : SHAPE[1]] += real(0.25) * x[given]
        made[given, SHAPE[1] :] += real(0.1)
        return made

    inputs = (
        ("sample", "x", dtype, shape),
        ("timestep", "t", dtype, ()),
        ("class_labels", "label", "int64", ("batch",)),
    )
    specs = tuple(TensorSpec(*given) for given in inputs)  # type: ignore[arg-type]
    made = TensorSpec("out_sample", "out", dtype, out)  # type: ignore[arg-type]
    tensors = [Tensor(spec.name, spec.dtype, spec.shape) for spec in (*specs, made)]
    return FunctionBackend(call, tensors[:3], tensors[3:]), Network("network.onnx", specs, (made,))


def _asked(guidance: Guidance, alone: int) -> bytes:
    """Encode what guided.cpp reads before the case."""
    whole = lambda number: struct.pack("<Q", number)  # noqa: E731
    table = np.zeros((0, 0))
    if guidance.scale is None:
        table = np.asarray(guidance.schedule, np.float64)
        table = table.reshape(len(table), -1)
    low, high = guidance.interval or (-math.inf, math.inf)
    schedule = 0 if guidance.scale is None else _SCHEDULES.index(guidance.schedule)  # type: ignore[arg-type]
    parts = []
    for numbers in (() if guidance.scale is None else np.atleast_1d(guidance.scale), table.ravel()):
        parts += [whole(len(numbers)), np.asarray(numbers, "<f8").tobytes()]
    parts += [*map(whole, (*table.shape, schedule, _UNITS.index(guidance.unit), 3))]
    parts += [np.array([low, high, guidance.rescale], "<f8").tobytes(), whole(alone)]
    return b"".join(parts)


def _write(path: Path, plan: StepPlan, guidance: Guidance, dtype: Any, seed: int = 3) -> None:
    stream = make_noise("torch-cpu", seed)
    x_T = stream.normal(SHAPE).astype(dtype)
    noise = [stream.normal(SHAPE).astype(dtype) for _ in range(plan.draws)]
    base = np.ones(SHAPE[0]) if guidance.scale is None else np.broadcast_to(np.asarray(guidance.scale), SHAPE[:1])
    table = Scales(base.astype(np.float64), guidance).table(plan)
    backend, network = _network(np.dtype(dtype).name, plan.parts)
    denoiser = Denoiser(backend, network, SHAPE[0], guided=True, conditions={"class_labels": ()})
    labels = {"class_labels": np.ones(SHAPE[0], np.int64)}
    denoiser.condition(labels, {"class_labels": 0 * labels["class_labels"]}, table, guidance.rescale)
    executor = Executor(plan, denoiser, SHAPE, dtype)
    result = executor.run(x_T * dtype(plan.init_scale), noise=np.stack(noise) if noise else None)
    plain = int((np.broadcast_to(table, (plan.calls, SHAPE[0])) == 1).all(axis=1).sum())
    case = cpp_golden.encode_case(plan, dtype, seed, x_T, noise, result)
    path.write_bytes(_asked(guidance, plain) + case)


def write_guided(folder: Path) -> None:
    """Write every case in both precisions."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (plan, guidance) in CASES.items():
        for dtype in (np.float32, np.float64):
            _write(folder / f"{name}-{np.dtype(dtype).name}.guided", cpp_golden.CASES[plan](), guidance, dtype)
