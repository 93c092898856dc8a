"""Whole-sample time against calls x engine time, for the UNet of google/ddpm-cifar10-32 with random weights.

Three things in turn: 20 steps of dpmrt, 20 bare engine calls, 20 steps of torch + diffusers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import table
from diffusers import DPMSolverMultistepScheduler, UNet2DModel

from dpmrt.export import export_bundle
from dpmrt.runtime import load
from dpmrt.runtime.backends import open_backend

CIFAR10 = {
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "block_out_channels": (128, 256, 256, 256),
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "attention_head_dim": None,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}


def make_source(folder: Path) -> UNet2DModel:
    torch.manual_seed(0)
    unet = UNet2DModel(**CIFAR10).eval()
    unet.save_pretrained(folder / "unet")
    DPMSolverMultistepScheduler().save_pretrained(folder / "scheduler")
    return unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unet = make_source(folder / "source")
        bundle = export_bundle(folder / "source", folder / "bundle", name="cifar10")
        with load(bundle) as pipeline:
            x = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
            out = np.empty_like(x)
            backend = open_backend("onnxruntime", bundle, pipeline.manifest.unet)
            call = backend.bind({"sample": x, "timestep": np.full(1, 500, np.float32)}, {"out_sample": out})

            def bare() -> None:
                for _ in range(options.steps):
                    call()

            def ours() -> None:
                pipeline.sample(1, x_T=x, steps=options.steps)

            scheduler = DPMSolverMultistepScheduler()

            def theirs() -> None:
                scheduler.set_timesteps(options.steps)
                state = torch.from_numpy(x)
                with torch.inference_mode():
                    for t in scheduler.timesteps:
                        state = scheduler.step(unet(state, t).sample, t, state).prev_sample

            measured: dict[str, list[float]] = {"dpmrt": [], "bare engine calls": [], "torch + diffusers": []}
            for turn in range(options.rounds + 1):
                for label, work in zip(measured, (ours, bare, theirs)):
                    start = time.perf_counter()
                    work()
                    if turn:
                        measured[label].append(time.perf_counter() - start)
    base = np.array(measured["bare engine calls"])
    rows = [
        [
            label,
            f"{np.median(t):.3f}",
            f"{np.min(t):.3f}",
            f"{np.median(np.array(t) / base):.3f}",
            f"{np.min(t) / base.min():.3f}",
        ]
        for label, t in measured.items()
    ]
    table(
        f"CIFAR-10's DDPM UNet, batch 1, {options.steps} steps, seconds for one sample",
        ["", "median", "best", "ratio to bare calls (median of pairs)", "of bests"],
        rows,
    )


if __name__ == "__main__":
    main()
