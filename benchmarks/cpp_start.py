"""From process start to a PNG on disk: the C++ sampler beside `dpmrt sample`, same bundle, same plan, same seed.

The C++ runtime has to be built with its ONNX Runtime adapter (docs/cpp.md); `--sampler` says where.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import ProcessCost, run_process, table
from PIL import Image

from dpmrt.engines import shipped_bundle

REQUESTS = {
    "one digit": ["--seed", "0"],
    "one guided digit": ["--label", "3", "--guidance", "2", "--seed", "0"],
}


def _pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sampler", default="build/cpp/dpmrt_sample")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    dpmrt = str(Path(sys.executable).with_name("dpmrt"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        plan, ours, theirs = f"{folder}/digits.steps", f"{folder}/cpp.png", f"{folder}/python.png"
        run_process([dpmrt, "sample", "digits", "--steps", str(options.steps), "--save-plan", plan, "-o", theirs])
        for name, request in REQUESTS.items():
            commands = {
                "C++": [options.sampler, str(shipped_bundle("digits")), "--plan", plan, "-o", ours, *request],
                "Python": [dpmrt, "sample", "digits", "--plan", plan, "-o", theirs, *request],
            }
            costs: dict[str, list[ProcessCost]] = {language: [] for language in commands}
            for run in range(options.runs + 1):
                for language, command in commands.items():
                    cost = run_process(command)
                    if run:
                        costs[language].append(cost)
            apart = int(np.abs(_pixels(ours) - _pixels(theirs)).max())
            for language, measured in costs.items():
                seconds = [cost.seconds for cost in measured]
                rows.append(
                    [
                        f"{name}, {language}",
                        f"{statistics.median(seconds):.3f}",
                        f"{min(seconds):.3f}",
                        f"{max(cost.peak_mb for cost in measured):.0f}",
                        f"{apart}",
                    ]
                )
    table(
        f"Process start to PNG, {options.steps} steps, {options.runs} runs in turn",
        ["", "seconds (median)", "best", "peak MB", "levels apart"],
        rows,
    )


if __name__ == "__main__":
    main()
