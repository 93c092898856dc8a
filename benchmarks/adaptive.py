"""Adaptive steps beside fixed ones: the error for so many network calls.

On three problems: a wide and a narrow Gaussian mixture, whose exact solutions are known, and the shipped digits, held
to a run of 600 steps. Fixed solvers take even steps in lambda between the same ends.

python benchmarks/adaptive.py                           print the table
python benchmarks/adaptive.py --picture adaptive.png    draw it too
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from common import table
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/solvers_np"))

from adaptive_problems import exact
from problems import BIMODAL, Mixture, network

from dpmrt.runtime import load
from dpmrt.solvers_np import Grid, NoiseSchedule, StepPlan, compile_plan, make_schedule, run_adaptive, run_plan

T = TypeVar("T")
NARROW = Mixture(np.array([0.5, 0.5]), np.array([-0.5, 0.6]), np.array([0.1, 0.1]))
RTOLS = (0.3, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
CALLS = (9, 12, 18, 24, 36, 48, 72, 96, 144, 192, 288)
#: atol is rtol times this, about as in the authors' defaults
ATOL = 0.2
ADAPTIVE: dict[str, dict[str, Any]] = {
    "dpm-solver-12": {},
    "dpm-solver-23": {},
    "dpm-solver++23": {},
    "dpm-solver-23, pid": {"controller": "pid"},
    "dpm-solver++23, pid": {"controller": "pid"},
}
FIXED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "DPM-Solver-3": ("dpmsolver-singlestep", 3, {"order": 3}),
    "DPM-Solver++(3S)": ("dpmsolver++singlestep", 3, {"order": 3}),
    "DPM-Solver++(2M)": ("dpmsolver++", 1, {"order": 2, "lower_order_final": False}),
    "UniPC-3": ("unipc", 1, {"order": 3, "lower_order_final": False}),
}


@dataclass(frozen=True)
class Problem:
    """A network with its start and its exact end."""

    name: str
    schedule: NoiseSchedule
    model: Callable[..., Any]
    start: np.ndarray[Any, Any]
    end: np.ndarray[Any, Any]
    slow: bool = False

    def few(self, values: Sequence[T]) -> Sequence[T]:
        """Return what there is time for: a trained network takes its time."""
        return values[:7] if self.slow else values

    def error(self, samples: np.ndarray[Any, Any]) -> float:
        """Return the distance from the exact end, relative to its size: the median over the batch."""
        axes = tuple(range(1, self.end.ndim))
        off, size = (np.sqrt(np.mean(v.astype(np.float64) ** 2, axes)) for v in (samples - self.end, self.end))
        return float(np.median(off / size))


Point = tuple[int, float]


def adaptive_points(problem: Problem) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for name, options in ADAPTIVE.items():
        solver = name.split(",")[0]
        for rtol in problem.few(RTOLS):
            tolerances = {"rtol": rtol, "atol": ATOL * rtol, "max_calls": 5000, **options}
            samples, report = run_adaptive(solver, problem.model, problem.schedule, problem.start, **tolerances)
            found.setdefault(name, []).append((report.calls, problem.error(samples)))
    return found


def even_plan(solver: str, schedule: NoiseSchedule, steps: int, options: dict[str, Any]) -> StepPlan:
    ends = [float(schedule.lambda_(t)) for t in (schedule.t_max, schedule.t_min)]
    grid = Grid.through_times(schedule, schedule.t_of_lambda(np.linspace(*ends, steps + 1)))
    return compile_plan(solver, schedule, steps, grid=grid, **options)


def fixed_points(problem: Problem) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for name, (solver, each, options) in FIXED.items():
        for calls in problem.few(CALLS):
            plan = even_plan(solver, problem.schedule, calls // each, options)
            samples = run_plan(plan, problem.model, problem.start)
            found.setdefault(name, []).append((plan.calls, problem.error(samples)))
    return found


def mixture(name: str, data: Mixture) -> Problem:
    schedule = make_schedule("vp-linear")
    return Problem(name, schedule, network(data, schedule, "epsilon"), *exact(data, schedule, {}))


def calls_for(points: list[Point], error: float) -> str:
    """Return the fewest calls with which the error is reached."""
    enough = [calls for calls, found in points if found <= error]
    return str(min(enough)) if enough else f"> {max(calls for calls, _ in points)}"


def draw(path: Path, results: dict[str, dict[str, list[Point]]]) -> None:
    figure = Figure(figsize=(15, 5.2), layout="constrained")
    for axes, (name, curves) in zip(figure.subplots(1, len(results)), results.items()):
        for k, (solver, points) in enumerate(curves.items()):
            fixed = solver in FIXED
            calls, errors = zip(*sorted(points))
            axes.loglog(
                calls, errors, "s--" if fixed else "o-", color=f"C{k}", label=solver, markersize=4, linewidth=1.2
            )
        axes.set(title=name, xlabel="network calls")
        axes.grid(alpha=0.3)
        axes.set_xlim(6, 1000)
        axes.set_xticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1000"])
    figure.axes[0].set_ylabel("distance from the exact solution, relative")
    figure.axes[-1].legend(fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="also draw to this PNG")
    parser.add_argument("--batch", type=int, default=4, help="how many digits")
    options = parser.parse_args()
    with load("digits") as pipeline:
        model = pipeline.model(options.batch)
        schedule = model.schedule
        x = np.random.default_rng(0).standard_normal(model.shape).astype(np.float32)
        end = run_plan(even_plan("dpmsolver++", schedule, 600, {"order": 2}), model, x)
        problems = [
            mixture("wide Gaussian mixture", BIMODAL),
            mixture("narrow Gaussian mixture (spread 0.1)", NARROW),
            Problem("digits", schedule, model, x, end, slow=True),
        ]
        results = {p.name: {**adaptive_points(p), **fixed_points(p)} for p in problems}
    errors = (1e-1, 1e-2, 1e-3)
    rows = [
        [solver, *(calls_for(curves[solver], e) for curves in results.values() for e in errors)]
        for solver in next(iter(results.values()))
    ]
    heads = ["solver", *(f"{name.split()[0]}, {e:g}" for name in results for e in errors)]
    table("Network calls with which a relative error was reached", heads, rows)
    if options.picture:
        draw(options.picture, results)


if __name__ == "__main__":
    main()
