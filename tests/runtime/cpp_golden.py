"""Golden trajectories for the C++ runtime: plans, noise and results, as Python's executor gives them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.solvers_np import StepPlan, compile_plan, make_noise, run_plan

SHAPE = (2, 3, 4, 6)


def network(x: NDArray[Any], t: NDArray[Any], parts: int = 1) -> NDArray[Any]:
    """The network of runtime/cpp/tests/network.h."""
    real = x.dtype.type
    first = real(0.9) * x / (1 + x * x) + real(0.0005 * float(t[0]))
    return first if parts == 1 else np.concatenate([first, real(0.5) / (1 + x * x)], axis=1)


def _plan(solver: str, steps: int = 8, **options: Any) -> Callable[[], StepPlan]:
    schedule = options.pop("schedule", "linear")
    return lambda: compile_plan(solver, schedule, steps, **{"prediction": "sample", **options})


CASES: dict[str, Callable[[], StepPlan]] = {
    "ddim": _plan("ddim"),
    "ddim-eta": _plan("ddim", eta=0.7),
    "ddpm-clip": _plan("ddpm", clip=1.0),
    "ddpm-learned-range": _plan("ddpm", variance="learned_range"),
    "dpmsolver++-1": _plan("dpmsolver++", order=1),
    "dpmsolver++-2": _plan("dpmsolver++", order=2),
    "dpmsolver++-3-thresholded": _plan("dpmsolver++", order=3, threshold=0.9),
    "dpmsolver-3": _plan("dpmsolver", order=3),
    "sde-dpmsolver++": _plan("sde-dpmsolver++", order=2),
    "unipc": _plan("unipc", order=3),
    "deis": _plan("deis"),
    "sa-solver": _plan("sa-solver"),
    "heun": _plan("heun"),
    "euler": _plan("euler"),
    "euler-ancestral": _plan("euler_ancestral"),
    "kdpm2": _plan("kdpm2"),
    "lms": _plan("lms"),
    "ipndm": _plan("ipndm", prediction="epsilon"),
    "langevin": _plan("predictor-corrector", 6, schedule="ve", prediction="score"),
    "langevin-per-sample": _plan("predictor-corrector", prediction="epsilon", per_sample=True, corrector_steps=2),
    "annealed-langevin": _plan("predictor-corrector", prediction="epsilon", corrector="annealed-langevin"),
    "pndm": _plan("pndm", 12, prediction="epsilon"),
}


def write_case(path: Path, plan: StepPlan, dtype: Any = np.float32, seed: int = 3) -> None:
    """Run a plan in Python and write all that C++ needs to run it again."""
    stream = make_noise("torch-cpu", seed)
    x_T = stream.normal(SHAPE).astype(dtype)
    noise = [stream.normal(SHAPE).astype(dtype) for _ in range(plan.draws)]
    recorded = np.stack(noise) if noise else None
    x = x_T * dtype(plan.init_scale)
    result = run_plan(plan, lambda x, t: network(x, t, plan.parts), x, noise=recorded)
    path.write_bytes(encode_case(plan, dtype, seed, x_T, noise, result))


def encode_case(
    plan: StepPlan, dtype: Any, seed: int, x_T: NDArray[Any], noise: Sequence[NDArray[Any]], result: NDArray[Any]
) -> bytes:
    """Return a case as runtime/cpp/tests/cases.h reads it."""
    whole = lambda number: struct.pack("<Q", number)  # noqa: E731
    data = plan.to_bytes()
    parts = [whole(0 if dtype is np.float32 else 1), whole(seed), whole(len(SHAPE)), *map(whole, SHAPE)]
    parts += [whole(len(data)), data]
    for array in (x_T, np.stack(noise) if noise else np.zeros(0), result):
        values = np.asarray(array, "<f8").ravel()
        parts += [whole(values.size), values.tobytes()]
    return b"".join(parts)


def write_golden(folder: Path) -> None:
    """Write every case in both precisions."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in CASES.items():
        for dtype in (np.float32, np.float64):
            write_case(folder / f"{name}-{np.dtype(dtype).name}.golden", make(), dtype)
