"""The drift of every backend along the trajectory, and the samples at its end, as a picture."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dpmrt.engines import Manifest, ParityReport
from dpmrt.runtime.images import to_uint8

Array = NDArray[np.float32]
_SHOWN, _COLUMNS = 4, 2
#: inches that the samples of one side are wide
_PANEL = 2.9
_COLOURS = ("#1f6fb4", "#c8553d", "#3c8d5a")


def draw_drift(
    stream: BinaryIO, report: ParityReport, manifest: Manifest, expected: Array, sample: Array | None
) -> None:
    """Draw relative drift over time, and below it the first samples of torch, of the bundle, and their difference."""
    pictures = sample is not None and sample.ndim == 4 and sample.shape[1] in (1, 3)
    heights = [4.6]
    if pictures and sample is not None:
        rows = -(-min(len(sample), _SHOWN) // _COLUMNS)
        heights.append(0.4 + _PANEL * rows / _COLUMNS * sample.shape[2] / sample.shape[3])
    figure = Figure(layout="constrained", figsize=(9.0, sum(heights)))
    parts = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    _draw_curves(figure.add_subplot(parts[0]), report, manifest, expected)
    if pictures and sample is not None:
        _draw_samples(figure, parts[1], manifest, expected[:_SHOWN], sample[:_SHOWN])
    figure.savefig(stream, format="png", dpi=110)


def _draw_curves(axes: Any, report: ParityReport, manifest: Manifest, expected: Array) -> None:
    floor = np.finfo(np.float32).eps / 100
    for colour, backend in zip(_COLOURS * len(report.backends), report.backends):
        drifts = [max(step.drift, floor) for step in backend.steps]
        axes.plot([step.t for step in backend.steps], drifts, "o-", color=colour, markersize=4, label=backend.backend)
    for height, text in _limit_lines(report, expected):
        axes.axhline(height, color="#444444", linestyle="--", linewidth=1.0, label=f"limit at the end: {text}")
    axes.set_yscale("log")
    if all(backend.steps and backend.steps[0].t >= backend.steps[-1].t for backend in report.backends):
        axes.invert_xaxis()
    options = ", ".join(f"{name} {value:g}" for name, value in report.options.items() if value is not None)
    axes.set(
        title=f"{manifest.name} ({report.precision}) beside torch: {report.scheduler}\n{options}",
        xlabel="t: noise on the left, data on the right",
        ylabel="RMS of the difference / RMS of torch's state",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)


def _limit_lines(report: ParityReport, expected: Array) -> list[tuple[float, str]]:
    lines = []
    if report.limits.drift is not None:
        lines.append((report.limits.drift, f"{report.limits.drift:g}"))
    rms = float(np.sqrt(np.mean(np.square(expected, dtype=np.float64))))
    if report.limits.psnr is not None and report.peak is not None and rms:
        lines.append((report.peak.width * 10 ** (-report.limits.psnr / 20) / rms, f"PSNR {report.limits.psnr:g} dB"))
    return lines


def _draw_samples(figure: Any, part: Any, manifest: Manifest, expected: Array, sample: Array) -> None:
    difference = np.abs(sample.astype(np.float64) - expected)
    largest = float(difference.max())
    panels = (
        ("torch", to_uint8(expected, manifest.data_range)),
        ("bundle", to_uint8(sample, manifest.data_range)),
        (f"difference, white is {largest:.1e}", to_uint8(difference, (0.0, largest or 1.0))),
    )
    cells = part.subgridspec(1, len(panels))
    for column, (title, pixels) in enumerate(panels):
        axes = figure.add_subplot(cells[column])
        axes.imshow(_strip(pixels), interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()


def _strip(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures in two columns, as three channels, with white between them."""
    coloured = np.repeat(pixels, 3 // pixels.shape[1], axis=1).transpose(0, 2, 3, 1)
    framed = np.pad(coloured, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    columns = min(_COLUMNS, len(framed))
    blank = np.full_like(framed[:1], 255)
    whole = [*framed, *(blank[0] for _ in range(-len(framed) % columns))]
    rows = [np.concatenate(whole[i : i + columns], axis=1) for i in range(0, len(whole), columns)]
    return np.concatenate(rows, axis=0)
