"""Analytic-DPM on the digits: the Frechet distance of few steps with each variance of the noise.

A copy of the shipped bundle is calibrated over the digits, each with its class, and sampled by class without
guidance, over even times from the last to the first (the paper's trajectory) or as `trailing` spaces them. x0 is
clipped to the data's range. All rows start from the same noise.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import table

from dpmrt.engines import shipped_bundle
from dpmrt.export.reference.classifiers import DigitReader, load_reader
from dpmrt.export.reference.digits import load_digits
from dpmrt.export.reference.quality import frechet_distance
from dpmrt.runtime import Pipeline, calibrate, load

READER = shipped_bundle("digits").parent / "checkpoints/digits-reader"
VARIANCES: dict[str, tuple[str, dict[str, Any]]] = {
    "DDPM, beta-tilde": ("ddpm", {"variance": "fixed_small"}),
    "DDPM, beta": ("ddpm", {"variance": "fixed_large"}),
    "DDPM, analytic": ("ddpm", {"variance": "analytic"}),
    "DDIM": ("ddim", {}),
    "DDIM, analytic": ("ddim", {"variance": "analytic"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 25, 50])
    parser.add_argument("--grid", choices=["even", "trailing"], default="even")
    parser.add_argument("--solver", choices=["ddpm", "ddim"], help="the rows of one solver alone")
    parser.add_argument(
        "--calibrated", type=Path, help="a calibrated copy of the bundle; made here unless it is there"
    )
    parser.add_argument(
        "--measure", type=int, nargs=2, default=[256, 50], help="samples and times of the calibration"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = calibrated(options.calibrated or Path(folder) / "digits", *options.measure)
        reader = load_reader(READER)
        real = reader.features(load_digits().images)
        with load(bundle) as pipeline:
            rows = [
                [name, *(f"{distance(pipeline, name, n, options, reader, real):.1f}" for n in options.steps)]
                for name, (solver, _) in VARIANCES.items()
                if options.solver in (None, solver)
            ]
    columns = ["Frechet distance", *(f"{n} steps" for n in options.steps)]
    table(f"{options.samples} digits, times {options.grid}", columns, rows)


def calibrated(bundle: Path, samples: int, times: int) -> Path:
    if not bundle.exists():
        shutil.copytree(shipped_bundle("digits"), bundle)
        data = load_digits()
        calibrate(bundle, data.images, label=data.labels, samples=samples, steps=times)
    return bundle


def distance(
    pipeline: Pipeline, name: str, steps: int, options: argparse.Namespace, reader: DigitReader, real: np.ndarray
) -> float:
    solver, variance = VARIANCES[name]
    how: dict[str, Any] = {**variance, "grid": options.grid}
    if options.grid == "even":
        how |= {"grid": "times", "times": np.linspace(999, 0, steps).round().tolist()}
    parts = []
    for start in range(0, options.samples, 200):
        count = min(200, options.samples - start)
        labels = [k % 10 for k in range(start, start + count)]
        parts.append(
            pipeline.sample(
                count, seed=start, steps=steps, solver=solver, label=labels, guidance=1.0, clip=1.0, **how
            )
        )
    return frechet_distance(reader.features(np.concatenate(parts)), real)


if __name__ == "__main__":
    main()
