"""Builds that are cancelled, killed or doubled, as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_trt_build import leftovers

from dpmrt.engines.built import list_engines
from dpmrt.export import build_engine

DPMRT = str(Path(sys.executable).parent / "dpmrt")

#: says when a phase begins, so that a signal can be sent at that moment
TALKING = """
import sys
from dpmrt.export.cli.termination import terminated_like_interrupted
from dpmrt.export.tensorrt.messages import Started
from dpmrt.export import build_engine
def tell(event):
    if isinstance(event, Started):
        print(event.phase, flush=True)
with terminated_like_interrupted():
    build_engine(sys.argv[1], progress=tell, say=lambda line: print(line, flush=True))
print("built", flush=True)
"""


@pytest.fixture
def talking() -> Iterator[Any]:
    """Return a function that starts a build and waits until a phase begins."""
    running: list[subprocess.Popen[str]] = []

    def start(bundle: Path, phase: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", TALKING, str(bundle)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == phase:
                return process
        raise AssertionError(f"no phase {phase}: {process.stderr.read() if process.stderr else ''}")

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Return whether a process ends within some seconds; one that waits for its parent to be told has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["Optimizing graph", "Timing graph nodes"])
def test_an_interrupt_stops_the_builder_itself(digits: Path, talking: Any, phase: str, sent: int) -> None:
    process = talking(digits, phase)
    (builder,) = children(process.pid)
    process.send_signal(sent)
    said, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    # It stopped where it was, and did not build to the end first.
    assert "Writing the plan" not in said
    assert "built" not in said
    assert gone(builder)
    assert leftovers(digits / "engines") == []
    assert not build_engine(digits).found


def test_ctrl_c_in_a_terminal_reaches_the_whole_group(digits: Path, talking: Any) -> None:
    process = talking(digits, "Optimizing graph")
    (builder,) = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert gone(builder)
    assert leftovers(digits / "engines") == []


@pytest.mark.parametrize("phase", ["Parsing the graph", "Optimizing graph", "Timing graph nodes", "Writing the plan"])
def test_a_kill_leaves_nothing_that_loads(digits: Path, talking: Any, phase: str) -> None:
    process = talking(digits, phase)
    (builder,) = children(process.pid)
    process.kill()
    process.wait()
    assert gone(builder), "the builder outlived the process that asked"
    assert list_engines(digits / "engines") == []
    told: list[str] = []
    assert not build_engine(digits, say=told.append).found
    assert told == [f"building: no engine of the unet is in {digits / 'engines'}"]
    # What the killed build left, the next one swept away.
    assert [name[-5:] for name in leftovers(digits / "engines")] == [".json", ".plan"]


def test_a_killed_builder_is_an_error_of_the_one_that_asked(digits: Path, talking: Any) -> None:
    process = talking(digits, "Optimizing graph")
    (builder,) = children(process.pid)
    os.kill(builder, signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert "dpmrt.errors.BackendError: the building process was killed" in errors
    assert "signal SIGKILL" in errors
    assert list_engines(digits / "engines") == []


def test_a_kill_at_random_moments(digits: Path) -> None:
    """Each build is killed a little later than the one before, from its start to past its end."""
    for delay in (0.05, 0.3, 0.6, 1.2, 1.8):
        process = subprocess.Popen(
            [DPMRT, "build", str(digits)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        process.kill()
        process.wait()
        for entry in list_engines(digits / "engines"):
            assert entry.manifest is not None
            plan = entry.sidecar.with_suffix(".plan")
            assert plan.stat().st_size == entry.manifest.plan.bytes
    built = build_engine(digits)
    assert sorted(leftovers(digits / "engines")) == [f"{built.manifest.key}.json", f"{built.manifest.key}.plan"]


def test_two_builds_at_once_build_once(digits: Path, talking: Any) -> None:
    first = talking(digits, "Building engine")
    second = subprocess.run([DPMRT, "build", str(digits)], capture_output=True, text=True, timeout=120)
    output, errors = first.communicate(timeout=60)
    assert output.endswith("built\n"), errors
    assert second.returncode == 0, second.stderr
    assert second.stderr == "another process builds this engine; waiting for it\n"
    assert second.stdout.startswith("Found ")


def test_a_build_that_waits_takes_over_from_one_that_was_killed(digits: Path, talking: Any) -> None:
    first = talking(digits, "Building engine")
    second = subprocess.Popen(
        [DPMRT, "build", str(digits)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert second.stderr is not None
    assert second.stderr.readline() == "another process builds this engine; waiting for it\n"
    first.kill()
    output, errors = second.communicate(timeout=60)
    assert output.startswith("Built "), errors
