"""Drift of whole trajectories: ONNX Runtime under dpmrt against torch under diffusers, same noise, fp32."""

from __future__ import annotations

import argparse

from common import table

from dpmrt.engines import shipped_bundle
from dpmrt.export import verify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50])
    options = parser.parse_args()
    rows = []
    for steps in options.steps:
        report = verify(shipped_bundle("digits"), steps=steps, batch=4, write=False, plot=False)
        last = report.backends[0].steps[-1]
        rows.append([steps, f"{last.drift:.1e}", f"{last.max_abs:.1e}", "1e-4", "yes" if report.passed else "NO"])
    table(
        "Digits, guided, DPM-Solver++(2M): difference at the end over the final sample's RMS",
        ["steps", "relative", "largest", "bound", "within"],
        rows,
    )


if __name__ == "__main__":
    main()
