"""From nothing to a sample: a process that loads a bundle, samples once, and says what that took."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmrt.errors import BackendError

#: where one process took less than this, two more are run and the medians taken
_SHORT = 3.0
_MORE = 2


def first_sample(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run the task in processes of their own; returns the fields of a `FirstSample`.

    The task has `bundle`, `engine`, `engine_options`, `steps`, `solver`, `scheduler` (whether to follow the
    scheduler's config), `batch`, `shape`, `guidance` and `seed`.
    """
    runs = [_run(task)]
    if runs[0]["from_start"] < _SHORT:
        runs += [_run(task) for _ in range(_MORE)]
    middle = {name: sorted(run[name] for run in runs)[len(runs) // 2] for name in ("load", "sample", "from_start")}
    peaks = {
        name: max((run[name] for run in runs if run[name] is not None), default=None)
        for name in ("peak_bytes", "device_bytes")
    }
    return {"runs": len(runs), **middle, **peaks}


def _run(task: Mapping[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "dpmrt.runtime.bench.first", json.dumps(task)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            seconds = time.perf_counter() - start
            _, complaints = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0 or not line:
        last = complaints.strip().splitlines()[-1:] or ["nothing was printed"]
        ended = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        raise BackendError(
            "a process of its own could not load the bundle and sample",
            got=f"{ended}: {last[0]}",
            fix="run `dpmrt doctor`, which tries each library by itself",
        )
    return {**json.loads(line), "from_start": seconds}


def peak_bytes() -> int | None:
    """Return the largest memory that this process has held, or None where the system does not say so."""
    try:
        # What getrusage says includes the parent's memory, of which a child starts as a copy.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def main() -> None:
    """Do the task that the command line holds as JSON, and print what it took as JSON."""
    task = json.loads(sys.argv[1])
    start = time.perf_counter()
    from dpmrt.runtime.bench.memory import device_bytes
    from dpmrt.runtime.bench.request import make_request
    from dpmrt.runtime.loading import load
    from dpmrt.solvers_np import plan_from_diffusers

    with load(task["bundle"], task["engine"], **task["engine_options"]) as pipeline:
        loaded = time.perf_counter()
        keys = ("batch", "shape", "guidance", "seed")
        request = make_request(pipeline.bundle, **{key: task[key] for key in keys})
        plan = (
            plan_from_diffusers(pipeline.bundle.scheduler_config, task["steps"])
            if task["scheduler"]
            else pipeline.plan(task["steps"], task["solver"])
        )
        pipeline.sample(plan=plan, **request.arguments)
        done = time.perf_counter()
        found = {
            "load": loaded - start,
            "sample": done - loaded,
            "peak_bytes": peak_bytes(),
            "device_bytes": device_bytes(),
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
