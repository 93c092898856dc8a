"""Every scheduler class: cost of a step, dpmrt's executor beside diffusers' own `step`, and of compiling the plan.

The network is a copy of a constant, whose time is taken off; noise is a constant on both sides.
"""

from __future__ import annotations

import argparse
import importlib
import time
import unittest.mock
import warnings
from typing import Any

import diffusers
import numpy as np
import torch
from common import best_of, table
from constant_network import ConstantNetwork

from dpmrt.solvers_np import Executor, plan_from_diffusers
from dpmrt.solvers_np.from_diffusers import CLASSES

PLAIN = {"clip_sample": False}
KEYS: dict[str, dict[str, Any]] = {
    "DDPMScheduler": PLAIN,
    "DDIMScheduler": PLAIN,
    "DDIMInverseScheduler": PLAIN,
    "LCMScheduler": PLAIN,
    "TCDScheduler": PLAIN,
    "ScoreSdeVeScheduler": {"correct_steps": 0},
    "PNDMScheduler": {"skip_prk_steps": True},
}
#: what needs a package that is not installed, or has another interface
NOT_TIMED = ("DPMSolverSDEScheduler", "ScoreSdeVeScheduler")


class Still:
    """A noise source that costs nothing."""

    def __init__(self, noise: np.ndarray[Any, Any]) -> None:
        self._noise = noise

    def normal(self, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        return self._noise


def ours(name: str, steps: int, shape: tuple[int, ...], repeats: int) -> tuple[float, float, int, int]:
    """Return microseconds a call, milliseconds to compile, calls and slots."""
    config = {"_class_name": name, **KEYS.get(name, {})}
    compile_ms = 1e3 * best_of(lambda: plan_from_diffusers(config, steps), 5)
    plan = plan_from_diffusers(config, steps)
    rng = np.random.default_rng(0)
    x, output = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    network = ConstantNetwork(0.01 * output)
    executor, costs = Executor(plan, network, shape), []
    for _ in range(repeats):
        network.seconds, start = 0.0, time.perf_counter()
        executor.run(x, noise=Still(output))
        costs.append((time.perf_counter() - start - network.seconds) / plan.calls)
    return float(np.median(costs) * 1e6), compile_ms, plan.calls, plan.slots


def theirs(name: str, steps: int, shape: tuple[int, ...], repeats: int) -> float:
    generator = torch.Generator().manual_seed(0)
    x, output = (torch.randn(shape, generator=generator) for _ in range(2))
    scheduler = getattr(diffusers, name)(**KEYS.get(name, {}))
    module, costs = importlib.import_module(type(scheduler).__module__), []

    def still(*arguments: Any, **options: Any) -> torch.Tensor:
        return output

    noise = unittest.mock.patch.object(module, "randn_tensor", still, create=True)
    for _ in range(repeats):
        scheduler.set_timesteps(steps)
        state, start = x, time.perf_counter()
        with noise:
            for t in scheduler.timesteps:
                if hasattr(scheduler, "scale_model_input"):
                    scheduler.scale_model_input(state, t)
                state = scheduler.step(output, t, state).prev_sample
        costs.append((time.perf_counter() - start) / len(scheduler.timesteps))
    return float(np.median(costs) * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--shape", default="1x4x64x64")
    options = parser.parse_args()
    shape = tuple(int(n) for n in options.shape.split("x"))
    diffusers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    rows = []
    for name in CLASSES:
        mine, compile_ms, calls, slots = ours(name, options.steps, shape, options.repeats)
        peer = None if name in NOT_TIMED else theirs(name, options.steps, shape, options.repeats)
        rows.append(
            [
                name.removesuffix("Scheduler"),
                calls,
                slots,
                f"{compile_ms:.2f}",
                f"{mine:.1f}",
                "-" if peer is None else f"{peer:.1f}",
                "-" if peer is None else f"{mine / peer:.3f}",
            ]
        )
    table(
        f"{options.steps} steps, latents {options.shape}, microseconds per network call (median)",
        ["class", "calls", "slots", "compile ms", "dpmrt", "diffusers step()", "ratio"],
        rows,
    )


if __name__ == "__main__":
    main()
