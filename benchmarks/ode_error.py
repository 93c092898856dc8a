"""Draws docs/ode.png: error against network calls of SciPy's solvers along the exact flow of a mixture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/runtime"))
from exact_models import TWO, Exact, transported  # noqa: E402

from dpmrt.runtime.drivers import find_driver  # noqa: E402
from dpmrt.solvers_np import make_schedule  # noqa: E402

CASES = [("RK45", v) for v in ("lambda", "sigma", "t")] + [(m, "lambda") for m in ("RK23", "DOP853", "LSODA")]
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def main() -> None:
    schedule = make_schedule("scaled_linear")
    noise = np.random.default_rng(0).standard_normal((8, 8))
    exact = transported(TWO, schedule, noise, schedule.t_max, schedule.t_min)
    driver = find_driver("ode")
    assert driver is not None
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for method, variable in CASES:
        points = []
        for tolerance in TOLERANCES:
            model = Exact(TWO, schedule, "epsilon", noise.shape)
            options = {"rtol": tolerance, "atol": tolerance, "denoise": False, "max_calls": 100_000}
            driven = driver(model, noise, noise=None, method=method, variable=variable, **options)  # type: ignore[arg-type]
            points.append((driven.report.calls, float(np.abs(driven.samples - exact).max())))
        print(f"{method:7} {variable:7}", "  ".join(f"{calls:5d} {error:.1e}" for calls, error in points))
        axes.loglog(
            *zip(*points), "o-" if method == "RK45" else "o--", label=f"{method} over {variable}", markersize=4
        )
    axes.set(
        title="rtol = atol from 1e-2 to 1e-6",
        xlabel="network calls",
        ylabel="largest error of 64 numbers",
    )
    axes.set_xticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    axes.tick_params(axis="x", which="minor", labelbottom=False)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(ROOT / "docs/ode.png", dpi=110)


if __name__ == "__main__":
    main()
