"""How good the shipped digits are, sampled without torch: the share read as asked, and the Frechet distance.

The reader is a classifier of clean digits that never saw a sample. Beside dpmrt stand torch + diffusers with the
same noise, and the real digits themselves (what the reader makes of them, and half against half).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import table
from PIL import Image

from dpmrt.engines import shipped_bundle
from dpmrt.export.reference.classifiers import load_reader
from dpmrt.export.reference.digits import load_digits
from dpmrt.export.reference.quality import frechet_distance, read_share, sample_unet
from dpmrt.runtime import load
from dpmrt.runtime.images import layout, to_uint8

CHECKPOINTS = shipped_bundle("digits").parent / "checkpoints"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 3.0])
    parser.add_argument(
        "--picture", type=Path, help="also write the first hundred, at the last guidance, to this PNG"
    )
    options = parser.parse_args()
    reader = load_reader(CHECKPOINTS / "digits-reader")
    real, real_labels = load_digits()
    data = reader.features(real)
    labels = np.arange(options.samples) % 10
    shuffled = np.random.default_rng(0).permutation(len(real))
    half = len(real) // 2
    rows: list[list[object]] = [
        [
            "real digits",
            "",
            f"{100 * read_share(real, real_labels, reader):.1f}%",
            f"{frechet_distance(data[shuffled[:half]], data[shuffled[half:]]):.2f} (half to half)",
        ]
    ]
    with load(shipped_bundle("digits")) as pipeline:
        for guidance in options.guidance:
            ours = pipeline.sample(
                options.samples, seed=0, steps=options.steps, guidance=guidance, label=labels.tolist()
            )
            theirs = sample_unet(CHECKPOINTS / "digits-unet", labels, steps=options.steps, guidance=guidance, seed=0)
            for name, images in (("dpmrt", ours), ("torch + diffusers", theirs)):
                rows.append(
                    [
                        name,
                        guidance,
                        f"{100 * read_share(images, labels, reader):.1f}%",
                        f"{frechet_distance(reader.features(images), data):.2f}",
                    ]
                )
    if options.picture:
        Image.fromarray(layout(to_uint8(ours[:100]), columns=10, scale=4)[..., 0]).save(options.picture)
    table(
        f"{options.samples} digits, DPM-Solver++(2M), {options.steps} steps",
        ["", "guidance", "read as asked", "Frechet distance to the 1,797 digits"],
        rows,
    )


if __name__ == "__main__":
    main()
