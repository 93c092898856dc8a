"""The process that builds: `python -m dpmrt.export.tensorrt.child`, a job on stdin, messages on the descriptor given.

TensorRT may end its process on odd input; here that ends nothing else. The process dies with its parent, and stops
when stdin closes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from dpmrt.errors import DpmrtError
from dpmrt.export.tensorrt.configure import configure
from dpmrt.export.tensorrt.messages import Built, Failed, Finished, Job, Message, Started, Stepped
from dpmrt.export.tensorrt.parsing import ParseFailure, describe, parse_network
from dpmrt.export.tensorrt.timing_cache import load_timing_cache, save_timing_cache
from dpmrt.runtime.tensorrt_library import TensorRT, load_library

_DIE_WITH_PARENT = 1
_BLOCK = 64 << 20
#: a bar is not drawn more often than this
_EVERY = 0.05


def main(descriptor: int) -> None:
    """Read a job from stdin, do it, and say how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    _die_with(job.parent)
    with os.fdopen(descriptor, "wb", buffering=0) as out:
        send = _Sender(out)
        try:
            send(_build(job, send))
        except _Cancelled:
            send(Failed("cancelled", "the build was cancelled", ""))
        except ParseFailure as error:
            send(Failed("parse", "TensorRT's parser refused the graph", str(error)))
        except DpmrtError as error:
            send(Failed("library", error.what, str(error.got)))
        except MemoryError as error:
            send(Failed("memory", "there is not enough memory to build the engine", str(error) or "MemoryError"))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
            send(Failed("disk" if full else "other", "the engine cannot be written", str(error)))
        except Exception as error:
            send(Failed("other", "TensorRT's builder failed", f"{type(error).__name__}: {error}"))


class _Cancelled(Exception):
    pass


class _Sender:
    def __init__(self, out: Any) -> None:
        self._out = out

    def __call__(self, message: Message) -> None:
        self._out.write(msgspec.json.encode(message) + b"\n")


def _build(job: Job, send: _Sender) -> Message:
    request = job.request
    trt = load_library(request.library.flavour)
    if trt.library != request.library:
        raise RuntimeError(f"{trt.library} is loaded, and the request is for {request.library}")
    logger = _make_logger(trt.module, Path(job.log))
    builder = _make_builder(trt, logger)
    start = time.perf_counter()
    send(Started("Parsing the graph", None, 1))
    network, parser = parse_network(trt, builder, logger, Path(job.graph))
    inputs, outputs = describe(trt, network)
    parsed = time.perf_counter()
    send(Finished("Parsing the graph"))
    config = configure(trt, builder, request)
    if job.timing_cache is not None:
        load_timing_cache(config, Path(job.timing_cache))
    monitor = _make_monitor(trt, send)
    config.progress_monitor = monitor
    layers = int(network.num_layers)
    plan = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise _Cancelled
    if plan is None:
        return Failed("build", "TensorRT could not build the engine", "\n".join(logger.errors[-8:]))
    built = time.perf_counter()
    if job.timing_cache is not None:
        save_timing_cache(config, Path(job.timing_cache))
    # The graph's weights are no longer needed, and may be gigabytes.
    del network, parser
    send(Started("Writing the plan", None, 1))
    _write(Path(job.plan), memoryview(plan))
    send(Finished("Writing the plan"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Built(inputs, outputs, layers, round(parsed - start, 3), round(built - parsed, 3), peak)


def _make_builder(trt: TensorRT, logger: Any) -> Any:
    try:
        return trt.module.Builder(logger)
    except TypeError as error:
        # So pybind11 says that the library gave nothing; why, only the library's log tells.
        raise RuntimeError("\n".join(logger.errors) or str(error)) from error


def _write(path: Path, plan: memoryview) -> None:
    with path.open("xb") as stream:
        for start in range(0, len(plan), _BLOCK):
            stream.write(plan[start : start + _BLOCK])
            if _told_to_stop():
                raise _Cancelled
        stream.flush()
        os.fsync(stream.fileno())


def _told_to_stop() -> bool:
    """Return whether the parent closed stdin, or is gone."""
    return bool(select.select([0], [], [], 0)[0])


def _die_with(parent: int) -> None:
    """Have the system kill this process when the one that started it ends."""
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os._exit(1)


def _make_logger(module: Any, path: Path) -> Any:
    class Logger(module.ILogger):  # type: ignore[misc, name-defined]
        """Keeps everything but the chatter in a file, and the errors by themselves."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []
            self._file = path.open("w", encoding="utf-8", errors="replace")

        def log(self, severity: Any, msg: str) -> None:
            if severity == module.ILogger.VERBOSE:
                return
            if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(msg.split()))
            # Flushed at once: what led to a crash is what one wants to read.
            print(f"[{str(severity).rpartition('.')[2]}] {msg}", file=self._file, flush=True)

    return Logger()


def _make_monitor(trt: TensorRT, send: _Sender) -> Any:
    base = trt.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc, valid-type]
        """Passes the builder's phases on, and stops it when told to."""

        def __init__(self) -> None:
            base.__init__(self)
            self.cancelled = False
            self._said = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._say(Started(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self._said >= _EVERY:
                self._said = now
                self._say(Stepped(phase_name, step + 1))
            self.cancelled = self.cancelled or _told_to_stop()
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._say(Finished(phase_name))

        def _say(self, message: Message) -> None:
            try:
                send(message)
            except OSError:
                # An exception here would end the process within the library.
                self.cancelled = True

    return Monitor()


if __name__ == "__main__":
    main(int(sys.argv[1]))
