"""Cost of the host loop per step, beyond the network's own time: dpmrt's executor beside diffusers' scheduler.

The network is a copy of a constant into the buffer; the time inside it is taken off on both sides.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from common import table
from constant_network import ConstantNetwork
from diffusers import DPMSolverMultistepScheduler

from dpmrt.solvers_np import Executor, plan_from_diffusers

SHAPES = ((1, 4, 64, 64), (4, 4, 128, 128))


def ours(shape: tuple[int, ...], steps: int, repeats: int) -> float:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, dtype=np.float32)
    network = ConstantNetwork(rng.standard_normal(shape, dtype=np.float32))
    executor = Executor(plan_from_diffusers({"_class_name": "DPMSolverMultistepScheduler"}, steps), network, shape)
    costs = []
    for _ in range(repeats):
        network.seconds, start = 0.0, time.perf_counter()
        executor.run(x)
        costs.append((time.perf_counter() - start - network.seconds) / steps)
    return float(np.median(costs) * 1e6)


def theirs(shape: tuple[int, ...], steps: int, repeats: int) -> float:
    generator = torch.Generator().manual_seed(0)
    x, output = (torch.randn(shape, generator=generator) for _ in range(2))
    scheduler = DPMSolverMultistepScheduler()
    costs = []
    for _ in range(repeats):
        scheduler.set_timesteps(steps)
        state, start = x, time.perf_counter()
        for t in scheduler.timesteps:
            state = scheduler.step(output, t, state).prev_sample
        costs.append((time.perf_counter() - start) / steps)
    return float(np.median(costs) * 1e6)


def copy_floor(shape: tuple[int, ...], repeats: int) -> float:
    a, b = (np.random.default_rng(k).standard_normal((3, *shape), dtype=np.float32) for k in range(2))
    costs = []
    for _ in range(repeats * 20):
        start = time.perf_counter()
        np.copyto(a[:2], b[:2])
        costs.append(time.perf_counter() - start)
    return float(np.median(costs) * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    rows = []
    for shape in SHAPES:
        # in turn, so that a slow moment of the machine meets both
        pairs = [
            (ours(shape, options.steps, 10), theirs(shape, options.steps, 10)) for _ in range(options.repeats // 10)
        ]
        mine, diffusers = (float(np.median(column)) for column in zip(*pairs))
        rows.append(
            [
                "x".join(map(str, shape)),
                f"{mine:.1f}",
                f"{diffusers:.1f}",
                f"{mine / diffusers:.3f}",
                f"{copy_floor(shape, options.repeats):.1f}",
            ]
        )
    table(
        "Host loop, DPM-Solver++(2M), microseconds per step (median)",
        ["latents", "dpmrt", "diffusers step()", "ratio", "copying two rows"],
        rows,
    )


if __name__ == "__main__":
    main()
