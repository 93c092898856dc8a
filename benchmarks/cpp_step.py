"""Cost of a step on the CPU, beyond the network's own time: the C++ runtime beside Python's executor and diffusers.

All are set against one pass that reads state, output and the x0 before, and writes the first two: what a step of
DPM-Solver++(2M) cannot do without. The pass is C++ too, as the compiler makes it with the library's own flags, and
the same loop again with AVX2 allowed. Everything runs on one thread, and is the best of many runs.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import host_loop
import torch
from common import table

from dpmrt.solvers_np import plan_from_diffusers

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/cpp-bench"


def build() -> Path:
    """Return the benchmark's program, built as a user builds it."""
    for command in (
        ["cmake", "-S", str(ROOT / "runtime/cpp"), "-B", str(BUILD), "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", str(BUILD), "--target", "dpmrt_benchmark", "--parallel", "2"],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return BUILD / "dpmrt_benchmark"


def measured(program: Path, steps: int, repeats: int) -> dict[str, list[float]]:
    """Return, for each shape, microseconds of a step, of a pass and of a pass with AVX2, where there is one."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.steps"
        plan_from_diffusers({"_class_name": "DPMSolverMultistepScheduler"}, steps).save(plan)
        command = [str(program), str(plan), str(repeats)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {}
    for line in shown.splitlines()[2:]:
        shape, *numbers = line.split()
        values = [float(number) for number in numbers]
        found[shape] = [values[0], values[1], *values[3:4]]
    return found


def best(cost: Callable[[tuple[int, ...], int, int], float], shape: tuple[int, ...], steps: int) -> float:
    """Return the least of several medians."""
    return min(cost(shape, steps, 5) for _ in range(4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    program = build()
    rows = []
    cpp = measured(program, options.steps, options.repeats)
    for shape in host_loop.SHAPES:
        name = "x".join(map(str, shape))
        step, bare, *wide = cpp[name]
        python = best(host_loop.ours, shape, options.steps)
        peer = best(host_loop.theirs, shape, options.steps)
        for what, cost in (
            ("C++", step),
            ("one pass", bare),
            *(("one pass, AVX2", one) for one in wide),
            ("Python's executor", python),
            ("diffusers step()", peer),
        ):
            ratio = [f"{cost / bare:.2f}", *(f"{cost / one:.2f}" for one in wide)]
            rows.append([name, what, f"{cost:.2f}", *ratio])
    heads = ["latents", "what", "us", "of a pass", *(["of an AVX2 pass"] if len(rows[0]) == 5 else [])]
    table(f"A step of DPM-Solver++(2M), {options.steps} steps, microseconds", heads, rows)


if __name__ == "__main__":
    main()
