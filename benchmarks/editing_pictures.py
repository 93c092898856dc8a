"""docs/editing.png: digits varied, painted anew, and interpolated, all without torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dpmrt.export.reference.digits import load_digits
from dpmrt.runtime import image_to_image, inpaint, interpolate, load
from dpmrt.runtime.images import to_uint8

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
COLUMNS = 9


def rows_of_pictures() -> list[tuple[str, list[Any]]]:
    """Return each row's title and its pictures; None leaves a gap."""
    images, labels = load_digits()
    first = {digit: images[int(np.flatnonzero(labels == digit)[2])][None] for digit in range(10)}
    upper = np.zeros((16, 16), np.float32)
    upper[:8] = 1
    rows: list[tuple[str, list[Any]]] = []
    with load("digits") as pipeline:
        for source, target in ((3, 8), (7, 4)):
            varied = [
                image_to_image(pipeline, first[source], s, label=target, steps=50, guidance=3, seed=4)[0]
                for s in STRENGTHS
            ]
            title = f"a {source} asked to be a {target}, strength " + ", ".join(f"{s:g}" for s in STRENGTHS)
            rows.append((title, [first[source][0], None, *varied]))
        for digit in (5, 2):
            hidden = np.where(upper, -0.3, first[digit][0])
            asked = {"label": digit, "guidance": 1.0, "batch": 3}
            plain = inpaint(pipeline, first[digit], upper, solver="ddpm", known_noise="fresh", steps=50, **asked)
            again = inpaint(pipeline, first[digit], upper, steps=50, repaint=(5, 5), **asked)
            title = f"a {digit}, its upper half hidden; painted by replacement (3), by RePaint (3)"
            rows.append((title, [first[digit][0], hidden, *plain, None, *again]))
        way = interpolate(pipeline, (1, 12), COLUMNS, label=9, guidance=2, steps=20)
        rows.append(("9s, from seed 1 to seed 12", list(way)))
    return rows


def draw(rows: list[tuple[str, list[Any]]], path: Path) -> None:
    figure = Figure(figsize=(COLUMNS * 0.85, len(rows) * 1.15), layout="constrained")
    parts = figure.subfigures(len(rows), 1)
    for part, (title, pictures) in zip(parts, rows):
        part.suptitle(title, fontsize=8, x=0.01, ha="left")
        for axes, picture in zip(part.subplots(1, COLUMNS), [*pictures, *[None] * COLUMNS]):
            axes.axis("off")
            if picture is not None:
                axes.imshow(to_uint8(picture)[0], cmap="gray", vmin=0, vmax=255)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent.parent / "docs" / "editing.png")
    draw(rows_of_pictures(), parser.parse_args().out)


if __name__ == "__main__":
    main()
