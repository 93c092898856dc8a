"""The building process, seen from the one that asks: started, listened to, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from dpmrt.errors import BackendError, DpmrtError, OutputError
from dpmrt.export.tensorrt.advice import failing_layer, own_words, way_out
from dpmrt.export.tensorrt.messages import Built, Event, Failed, Finished, Job, Message, Started, Stepped

Listener = Callable[[Event], None]

#: how long a build has to stop by itself; it looks whether it should at every step
_GRACE = 5.0
_ERRORS = {"disk": OutputError}
_EXPECTED = {"disk": "room for the plan", "memory": "memory for several copies of the weights"}
#: what helps where the builder's own words are not known
_FIXES = {
    "parse": "export the network again: dpmrt export SOURCE -o BUNDLE, or run it with engine='onnxruntime'",
    "build": "see the log; other shapes or flags may do, and engine='onnxruntime' runs the graph as it is",
    "disk": "free some disk space, or give another folder with --engines DIR",
    "memory": "close what holds memory, add swap, or build on another machine and copy engines/ over",
}


def run_build(job: Job, listen: Listener | None = None) -> Built:
    """Build in a process of its own and return what was built; every failure, a crash too, is a typed error.

    An interrupt stops the build and is passed on. TensorRT can end a process that gives it odd input, and Python
    cannot stop a thread within it; a process can be lost and can be killed.
    """
    receive, send = os.pipe()
    # Kept open for writing by the child alone, so that its end is the end of the stream.
    with open(receive, "rb") as stream:
        try:
            process = _start(job, send)
        finally:
            os.close(send)
        try:
            last = _listen(stream, listen)
            process.wait()
        except BaseException:
            _stop(process)
            raise
        finally:
            _close(process)
    if isinstance(last, Built) and process.returncode == 0:
        return last
    raise _explained(last, process.returncode, Path(job.log))


def _start(job: Job, send: int) -> subprocess.Popen[bytes]:
    # What the library prints past its logger goes to the log too; without -u it would be lost in a crash.
    with Path(f"{job.log}.out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "dpmrt.export.tensorrt.child", str(send)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(send,),
            # A folder that happens to be called tensorrt, where the command is run, is not the library.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        process.stdin.flush()
    except OSError:
        # It died before it read; its end says why.
        pass
    except BaseException:
        _stop(process)
        _close(process)
        raise
    return process


def _listen(stream: Any, listen: Listener | None) -> Message | None:
    decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
    last: Message | None = None
    for line in stream:
        try:
            last = decoder.decode(line)
        except msgspec.DecodeError:
            # A line cut off by a crash.
            continue
        if isinstance(last, (Started, Stepped, Finished)) and listen is not None:
            listen(last)
    return last


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the build to stop, as the builder itself allows, and end it if it does not."""
    _close(process)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def _explained(last: Message | None, code: int, log: Path) -> DpmrtError:
    """Return the error for a build that ended badly; its log stays."""
    if isinstance(last, Failed):
        said = own_words(last.got)
        layer = failing_layer(said.splitlines())
        what = last.what + (f" at the layer {layer}" if layer and last.reason == "build" else "")
        kind = _ERRORS.get(last.reason, BackendError)
        got = (said or "no reason given") + f"\nlog: {log}"
        expected = _EXPECTED.get(last.reason, "a graph and flags that TensorRT takes")
        return kind(what, got=got, expected=expected, fix=way_out(said) or _FIXES.get(last.reason))
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    doing = f" in the phase “{last.phase}”" if isinstance(last, (Started, Stepped)) else ""
    killed = code == -signal.SIGKILL
    return BackendError(
        "the building process was killed" if killed else "TensorRT crashed while it built the engine",
        got=f"{ended}{doing}\nlog: {log}",
        expected="a plan",
        fix="the system kills what takes too much memory: free some, add swap, or build on another machine"
        if killed
        else "see the end of the log; the graph may hold what this TensorRT cannot take",
    )
