"""Does guidance do what it is for: the share of digits read as the class that was asked for, against the scale.

Three ways to the class, and each begins with no guidance at all at scale 0: classifier-free guidance
(null + s * (given - null)), the classifier's gradient on the unconditional network (the null label), and both.
The reader is a classifier of clean digits that never saw a sample.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import table

from dpmrt.engines import shipped_bundle
from dpmrt.export import export_bundle
from dpmrt.export.reference.classifiers import load_reader
from dpmrt.export.reference.digits import load_digits
from dpmrt.export.reference.quality import frechet_distance, read_share
from dpmrt.runtime import Pipeline, load
from dpmrt.runtime.images import to_uint8

CHECKPOINTS = shipped_bundle("digits").parent / "checkpoints"
ANCESTRAL = {"solver": "ddpm", "clip": 1.0}
#: what each way asks of a pipeline at a scale, and with how many times the steps
WAYS: dict[str, Any] = {
    "classifier-free": (lambda s, y: {"label": y, "guidance": s}, 1),
    "classifier": (lambda s, y: {"classifier_label": y, "classifier_scale": s}, 1),
    "both": (lambda s, y: {"label": y, "guidance": s, "classifier_label": y, "classifier_scale": s}, 1),
    "classifier, of the mean (DDPM)": (
        lambda s, y: {"classifier_label": y, "classifier_scale": s, **ANCESTRAL},
        5,
    ),
}
SHOWN = (0.0, 1.0, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="a bundle of the digits with a classifier; else it is exported")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--scale", type=float, nargs="+", default=[0.0, 0.5, 1.0, 2.0, 3.0, 5.0])
    parser.add_argument("--picture", type=Path, help="also draw the shares, and some samples, to this PNG")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = options.bundle
        if bundle is None:
            bundle = Path(scratch) / "digits"
            export_bundle(CHECKPOINTS / "digits-unet", bundle, classifier=CHECKPOINTS / "digits-classifier")
        with load(bundle) as pipeline:
            shares, distances, pictures = measure(pipeline, options.samples, options.steps, options.scale)
    table(
        f"{options.samples} digits, DPM-Solver++(2M), {options.steps} steps (DDPM: {5 * options.steps}); "
        "share read as asked (Frechet distance)",
        ["scale", *WAYS],
        [
            [f"{s:g}", *(f"{100 * shares[way][k]:.1f}% ({distances[way][k]:.1f})" for way in WAYS)]
            for k, s in enumerate(options.scale)
        ],
    )
    if options.picture:
        draw(options.picture, options.scale, shares, pictures)


def measure(
    pipeline: Pipeline, samples: int, steps: int, scales: list[float]
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, list[np.ndarray]]]:
    """Return shares and distances of each way at each scale, and the first ten pictures where they are shown."""
    reader, labels = load_reader(CHECKPOINTS / "digits-reader"), np.arange(samples) % 10
    data = reader.features(load_digits().images)
    shares: dict[str, list[float]] = {way: [] for way in WAYS}
    distances: dict[str, list[float]] = {way: [] for way in WAYS}
    pictures: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    for way, (asked, times) in WAYS.items():
        for scale in scales:
            made = pipeline.sample(samples, seed=0, steps=times * steps, **asked(scale, labels.tolist()))
            shares[way].append(read_share(made, labels, reader))
            distances[way].append(frechet_distance(reader.features(made), data))
            if scale in SHOWN:
                pictures[way].append(np.concatenate(list(to_uint8(made[:10])[:, 0]), axis=1))
    return shares, distances, pictures


def draw(
    path: Path, scales: list[float], shares: dict[str, list[float]], pictures: dict[str, list[np.ndarray]]
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for way, values in shares.items():
        left.plot(scales, 100 * np.array(values), "o-", label=way)
    left.axhline(10, color="grey", linestyle=":", linewidth=1)
    left.text(0.2, 11, "chance", ha="left", color="grey", fontsize=8)
    left.set(xlabel="scale of guidance", ylabel="read as the class asked for, %", ylim=(0, 102))
    left.grid(alpha=0.3)
    left.legend(fontsize=8, loc="lower right")
    shown = [s for s in scales if s in SHOWN]
    names = [f"{way.split(',')[0]}{', mean' if ',' in way else ''}, {s:g}" for way in pictures for s in shown]
    sheet = np.concatenate([row for rows in pictures.values() for row in rows])
    right.imshow(sheet, cmap="gray")
    right.set_yticks([16 * k + 8 for k in range(len(names))], names, fontsize=8)
    right.set_xticks([16 * k + 8 for k in range(10)], [str(k) for k in range(10)])
    right.set_title("the same noise; asked for 0 to 9", fontsize=10)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
