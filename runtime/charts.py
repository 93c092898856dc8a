"""Pictures of schedules, grids, solvers and adaptive runs, drawn with matplotlib where it is installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from dpmrt.errors import MissingExtraError
from dpmrt.runtime.images import to_uint8

if TYPE_CHECKING:
    from dpmrt.runtime.comparison import Curve
    from dpmrt.solvers_np import AdaptiveReport, Grid, NoiseSchedule

_SHOWN = 401
_MOST_LAMBDA = 12.0
#: errors are not drawn below this
_LEAST_ERROR = 1e-6
#: marker and colour by what became of a step
_OUTCOMES = {"accepted": ("o", "tab:blue"), "forced": ("^", "tab:orange"), "rejected": ("x", "tab:red")}
#: inches of the axes below which samples are drawn
_WIDE = 9.0


def _figure(**options: Any) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            "drawing needs a package that is not installed", got=error, fix="pip install 'dpmrt[viz]'"
        ) from error
    return Figure(layout="constrained", **options)


def check_drawing() -> None:
    """Raise MissingExtraError, before any work, where matplotlib is not installed."""
    _figure()


def draw_schedules(
    stream: BinaryIO, schedules: Mapping[str, NoiseSchedule], grids: Mapping[str, Grid], title: str
) -> None:
    """Draw signal, noise and lambda of each schedule over time, and where each grid calls the network."""
    figure = _figure(figsize=(13, 8.5))
    parts = figure.add_gridspec(2, 3)
    signal, noise, level = (figure.add_subplot(parts[0, column]) for column in range(3))
    ladder = figure.add_subplot(parts[1, :])
    for name, schedule in schedules.items():
        times = np.linspace(schedule.t_min, schedule.t_max, _SHOWN)
        part = times / schedule.t_max if 0 <= schedule.t_min < schedule.t_max else np.linspace(0, 1, _SHOWN)
        for axes, values in (
            (signal, schedule.alpha(times)),
            (noise, schedule.sigma(times)),
            (level, np.clip(schedule.lambda_(times), -_MOST_LAMBDA, _MOST_LAMBDA)),
        ):
            axes.plot(part, values, label=name, linewidth=1.6)
    for axes, text in ((signal, "signal, alpha"), (noise, "noise, sigma"), (level, "lambda = log(alpha / sigma)")):
        axes.set(title=text, xlabel="time, as a part of the last")
        axes.grid(alpha=0.3)
    if noise.get_ylim()[1] > 5:
        noise.set_yscale("log")
    level.legend(fontsize=8)
    _draw_ladder(ladder, grids, title)
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight")


def _draw_ladder(axes: Any, grids: Mapping[str, Grid], title: str) -> None:
    for row, grid in enumerate(grids.values()):
        values = np.clip(grid.start.lambda_, -_MOST_LAMBDA, _MOST_LAMBDA)
        axes.plot(values, np.full(len(values), row), "o-", markersize=4, linewidth=0.6)
    axes.set_yticks(range(len(grids)), list(grids))
    axes.invert_yaxis()
    axes.set(title=title, xlabel="lambda: noise on the left, data on the right")
    axes.grid(alpha=0.3, axis="x")


def draw_solvers(
    stream: BinaryIO, curves: Sequence[Curve], data_range: tuple[float, float], title: str, shown: int
) -> None:
    """Draw error against network calls, and the first samples of each solver for each number of calls."""
    sheet = _sheet(curves, data_range, shown)
    tall = 0.3 + _WIDE * sheet.shape[0] / sheet.shape[1] if sheet is not None else 0.0
    figure = _figure(figsize=(_WIDE + 2.0, 4.6 + tall))
    parts = figure.add_gridspec(1 if sheet is None else 2, 1, height_ratios=[4.6] if sheet is None else [4.6, tall])
    axes = figure.add_subplot(parts[0])
    for curve in curves:
        if curve.stochastic:
            continue
        calls, errors = zip(*((p.calls, p.error) for p in curve.points))
        axes.loglog(calls, errors, "o-", label=curve.name, markersize=4)
    ticks = legible([p.calls for curve in curves for p in curve.points])
    axes.set_xticks(ticks, [str(c) for c in ticks])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.set(title=title, xlabel="network calls", ylabel="distance from the exact solution, relative")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    if sheet is not None:
        _draw_samples(figure.add_subplot(parts[1]), sheet, curves)
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight")


def legible(calls: Sequence[int]) -> list[int]:
    """Return numbers that have room beside each other on a logarithmic axis; the most frequent have priority."""
    kept: list[int] = []
    for number, _ in Counter(sorted(calls, reverse=True)).most_common():
        if all(abs(np.log(number / other)) > 0.1 for other in kept):
            kept.append(number)
    return sorted(kept)


def draw_course(stream: BinaryIO, levels: Sequence[float], called: Sequence[int], title: str) -> None:
    """Draw which noise level an adaptive solver had reached after each network call, a mark for each step."""
    figure = _figure(figsize=(7, 4))
    axes = figure.add_subplot()
    axes.plot(called, np.clip(levels, -_MOST_LAMBDA, _MOST_LAMBDA), "o-", markersize=4, linewidth=1.2)
    axes.set(title=title, xlabel="network calls", ylabel="lambda = log(alpha / sigma)")
    axes.grid(alpha=0.3)
    figure.savefig(stream, format="png", dpi=110)


def _sheet(curves: Sequence[Curve], data_range: tuple[float, float], shown: int) -> Any:
    """Return samples as one picture, a row for a solver and a block for a number of calls; None for no pictures."""
    first = curves[0].points[0].samples
    if first.ndim != 4 or first.shape[1] not in (1, 3):
        return None
    strips = [[_strip(p.samples[:shown], data_range) for p in curve.points] for curve in curves]
    height, width = strips[0][0].shape[:2]
    gap = max(2, height // 4)
    sheet = np.full((len(curves) * (height + 2), len(strips[0]) * (width + gap) - gap, 3), 255, np.uint8)
    for row, line in enumerate(strips):
        for column, strip in enumerate(line):
            top, left = row * (height + 2), column * (width + gap)
            sheet[top : top + height, left : left + width] = strip
    return sheet


def _draw_samples(axes: Any, sheet: Any, curves: Sequence[Curve]) -> None:
    rows, columns = len(curves), len(curves[0].points)
    tall, wide = sheet.shape[0] / rows, sheet.shape[1] / columns
    axes.imshow(sheet, interpolation="nearest")
    axes.set_yticks([(row + 0.45) * tall for row in range(rows)], [c.name for c in curves])
    axes.set_xticks(
        [(column + 0.5) * wide for column in range(columns)], [f"{p.calls} calls" for p in curves[0].points]
    )
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _strip(samples: Any, data_range: tuple[float, float]) -> Any:
    """Return samples side by side, as bytes of three channels."""
    pixels = np.repeat(to_uint8(samples, data_range), 3 // samples.shape[1], axis=1)
    return np.concatenate(list(pixels.transpose(0, 2, 3, 1)), axis=1)


def draw_adaptive(stream: BinaryIO, report: AdaptiveReport) -> None:
    """Draw size and error of each step that an adaptive run tried, over lambda, marked by what became of it."""
    figure = _figure(figsize=(9.0, 6.2))
    sizes, errors = figure.subplots(2, 1, sharex=True)
    for order in sorted(set(report.order.tolist())):
        for outcome, (marker, color) in _OUTCOMES.items():
            chosen = (report.order == order) & (report.outcome == outcome)
            if not chosen.any():
                continue
            start, h, error = report.lambda_[chosen], report.h[chosen], report.error[chosen]
            face = color if order == report.order.max() else "white"
            look = {"color": color, "marker": marker, "markerfacecolor": face, "linestyle": "none", "markersize": 5}
            sizes.plot(start, np.abs(h), label=f"{outcome}, order {order}", **look)
            if outcome != "rejected":
                sizes.hlines(np.abs(h), np.minimum(start, start + h), np.maximum(start, start + h), color=color)
            errors.plot(start, np.maximum(error, _LEAST_ERROR), **look)
    errors.axhline(1.0, color="black", linewidth=0.8, linestyle="--")
    for axes, label in ((sizes, "step in lambda"), (errors, "error (1: the tolerance)")):
        axes.set_yscale("log")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    errors.set_xlabel("lambda = log(alpha / sigma), where the step starts: noise on the left, data on the right")
    sizes.set_title(report.summary())
    if report.trials:
        sizes.legend(fontsize=8)
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight")
