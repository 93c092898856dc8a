"""What the benchmarks share: the machine's name, fair timing, and processes measured from outside."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def machine() -> str:
    """Return the machine in a line: processor, cores, system, Python."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as stream:
            model = next(line.split(":")[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def best_of(function: Callable[[], object], runs: int) -> float:
    """Return the fastest of `runs` calls in seconds: the cost without what else the machine was doing."""
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


@dataclass(frozen=True)
class ProcessCost:
    """What one process took: seconds from its start to its end, those of processors, and the most memory it held."""

    seconds: float
    peak_mb: float
    processor: float


def run_process(command: Sequence[str]) -> ProcessCost:
    """Run a command to its end, and measure it; a failure is raised with what it printed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{output}")
    return ProcessCost(seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a title, in aligned columns, with the machine named."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[k]) for line in [list(columns), *cells]) for k in range(len(columns))]
    print(f"\n{title}\n({machine()})")
    for line in [list(columns), ["-" * w for w in widths], *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
