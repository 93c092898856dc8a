"""What half precision costs in quality: digits from fp16 and bf16 bundles against the fp32 bundle, same noise.

The half graphs run emulated, which rounds every result as hardware with the type does. Beside them stand torch's own
casts of the UNet, `.half()` and `.bfloat16()`, under diffusers and against torch in fp32.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import table
from numpy.typing import NDArray

from dpmrt.engines import shipped_bundle
from dpmrt.export import export_bundle
from dpmrt.export.reference.classifiers import DigitReader, load_reader
from dpmrt.export.reference.quality import read_share
from dpmrt.export.reference.unet import NULL_CLASS, load_scheduler, load_unet
from dpmrt.runtime import load

CHECKPOINTS = shipped_bundle("digits").parent / "checkpoints"
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
Images = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--peer-samples", type=int, default=200, help="CPUs compute slowly in half")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    options = parser.parse_args()
    reader = load_reader(CHECKPOINTS / "digits-reader")
    labels, peer_labels = (np.arange(count) % 10 for count in (options.samples, options.peer_samples))
    how = {"steps": options.steps, "guidance": options.guidance}
    exact, seconds = sampled(shipped_bundle("digits"), "onnxruntime", labels, **how)
    rows = [row("dpmrt fp32", exact, exact, labels, reader, seconds)]
    with tempfile.TemporaryDirectory() as folder:
        for kind in PRECISIONS:
            bundle = export_bundle(CHECKPOINTS / "digits-unet", Path(folder, kind), name="digits", precision=kind)
            got, seconds = sampled(bundle, "emulated", labels, **how)
            rows.append(row(f"dpmrt {kind}, emulated", got, exact, labels, reader, seconds))
    exact, seconds = peer(torch.float32, peer_labels, **how)
    rows.append(row("torch fp32", exact, exact, peer_labels, reader, seconds))
    for kind, dtype in PRECISIONS.items():
        got, seconds = peer(dtype, peer_labels, **how)
        rows.append(row(f"torch {kind}", got, exact, peer_labels, reader, seconds))
    table(
        f"Digits, DPM-Solver++(2M), {options.steps} steps, guidance {options.guidance:g}",
        ["", "samples", "PSNR to own fp32", "worst sample", "read as asked", "seconds"],
        rows,
    )


def sampled(
    bundle: Path, engine: str, labels: NDArray[np.int64], *, steps: int, guidance: float
) -> tuple[Images, float]:
    start = time.perf_counter()
    with load(bundle, engine) as pipeline:
        images = pipeline.sample(len(labels), seed=0, steps=steps, guidance=guidance, label=labels.tolist())
    return images, time.perf_counter() - start


def peer(dtype: torch.dtype, labels: NDArray[np.int64], *, steps: int, guidance: float) -> tuple[Images, float]:
    """Sample the network cast by torch; the state stays fp32, as it does in dpmrt."""
    folder = CHECKPOINTS / "digits-unet"
    model: Any = load_unet(folder).to(dtype)
    scheduler: Any = load_scheduler(folder)
    scheduler.set_timesteps(steps)
    asked = torch.as_tensor(labels)
    both = torch.cat([asked, torch.full_like(asked, NULL_CLASS)])
    x = torch.randn(len(labels), 1, 16, 16, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    with torch.inference_mode():
        for t in scheduler.timesteps:
            cond, uncond = model(torch.cat([x, x]).to(dtype), t, both).sample.float().chunk(2)
            x = scheduler.step(uncond + guidance * (cond - uncond), t, x).prev_sample
    return x.numpy(), time.perf_counter() - start


def row(
    name: str, got: Images, exact: Images, labels: NDArray[np.int64], reader: DigitReader, seconds: float
) -> list[object]:
    error = np.square(got.astype(np.float64) - exact).mean(axis=(1, 2, 3))
    width = float(exact.max() - exact.min())
    same = not error.any()
    return [
        name,
        len(labels),
        "" if same else f"{decibels(width, error.mean()):.1f} dB",
        "" if same else f"{decibels(width, error.max()):.1f} dB",
        f"{100 * read_share(got, labels, reader):.1f}%",
        f"{seconds:.1f}",
    ]


def decibels(width: float, mean_square: float) -> float:
    return 20 * float(np.log10(width)) - 10 * float(np.log10(mean_square))


if __name__ == "__main__":
    main()
