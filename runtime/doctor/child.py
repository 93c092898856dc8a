"""Asking in a process of its own, since importing a broken library can end the interpreter or never return."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_SECONDS = 120.0
_MARK = "dpmrt-answer:"


def ask(probe: str, *arguments: str, seconds: float = _SECONDS) -> dict[str, Any] | str:
    """Return what a function of `dpmrt.runtime.doctor.probes` answers, or why it does not."""
    return run_python(["-m", "dpmrt.runtime.doctor.probes", probe, *arguments], seconds)


def run_python(arguments: Sequence[str], seconds: float = _SECONDS) -> dict[str, Any] | str:
    """Run the interpreter, and return the object that it printed as an answer, or why there is none."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer after {seconds:g} seconds"
    except OSError as error:
        return f"no process can be started: {error}"
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            try:
                answer = json.loads(line[len(_MARK) :])
            except ValueError:
                return "an answer that is not JSON"
            return answer if isinstance(answer, dict) else str(answer)
    last = done.stderr.strip().splitlines()[-1:] or ["nothing was printed"]
    return f"{_ending(done.returncode)}: {last[0]}"


def answer(value: dict[str, Any] | str) -> None:
    """Print an answer, from within the child."""
    print(_MARK + json.dumps(value), flush=True)


def _ending(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    try:
        return f"the process was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the process was ended by signal {-code}"
