"""Whether memory and disk will do, before a build takes minutes to find out."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterable
from pathlib import Path

from dpmrt.engines.built import ENGINES_VARIABLE
from dpmrt.errors import BackendError, OutputError

#: what the library takes by itself, and what it takes for each byte of the graph and its weights; measured with
#: benchmarks/engine_build.py, rounded down, so that no build is refused that could do
BASE = 300 << 20
PER_BYTE = 2.5
#: addresses that loading the library takes; where they are wanting it ends the process
_LOADED = 300 << 20
_DISK_ROOM = 16 << 20
_MEMINFO = Path("/proc/meminfo")
_OWN = Path("/proc/self/statm")
_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def check_room(source_bytes: int, folder: Path) -> None:
    """Raise BackendError where the memory, OutputError where the disk will not hold the build of such a graph."""
    needed, free = int(BASE + PER_BYTE * source_bytes), free_memory()
    if free is not None and free < needed:
        raise BackendError(
            "there is not enough memory to build the engine",
            got=f"{show_bytes(free)} free, swap included",
            expected=f"about {show_bytes(needed)} for a graph of {show_bytes(source_bytes)}",
            fix="close what holds memory, add swap, or build on another machine and copy engines/ over",
        )
    room = shutil.disk_usage(folder).free
    if room < source_bytes + _DISK_ROOM:
        raise OutputError(
            "there is not enough disk space for the engine",
            got=f"{show_bytes(room)} free in {folder}",
            expected=f"{show_bytes(source_bytes + _DISK_ROOM)} or more",
            fix=f"free some, or give another folder with --engines DIR, or with {ENGINES_VARIABLE}",
        )


def check_loadable() -> None:
    """Raise BackendError where a limit on this process leaves too little for the library itself."""
    for left in _limit():
        if left < _LOADED:
            raise BackendError(
                "there is not enough memory to load TensorRT",
                got=f"{show_bytes(max(0, left))} left of the limit on this process",
                expected=f"{show_bytes(_LOADED)} or more",
                fix="raise the limit: ulimit -v unlimited",
            )


def free_memory() -> int | None:
    """Return how many bytes a process can still have: of the machine with its swap, its control group, its limit."""
    try:
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free = sum(int(fields[name].split()[0]) << 10 for name in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, LookupError):
        return None
    return min([free, *_groups(), *_limit()])


def _limit() -> Iterable[int]:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    try:
        yield limit - int(_OWN.read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, LookupError):
        return


def _groups() -> Iterable[int]:
    for limit, used in _LIMITS:
        try:
            yield int(limit.read_text()) - int(used.read_text()) + _reclaimable(used.parent)
        except (OSError, ValueError):
            # No such group, or "max".
            continue


def _reclaimable(group: Path) -> int:
    """Return the memory of a control group that holds files, which the system takes back when it needs it."""
    fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))


def show_bytes(count: float) -> str:
    """Return a size as people say it.

    >>> show_bytes(1_740_000_000)
    '1.74 GB'
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
