"""On what something ran: the processor, memory, system, and versions of the libraries that are installed."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")


def processor() -> str:
    """Return the processor's name, or else its architecture."""
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many processors this process may use.

    >>> usable_cores() >= 1
    True
    """
    with contextlib.suppress(AttributeError):  # of Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def system() -> str:
    """Return the operating system in a few words."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def load_average() -> float | None:
    """Return how many processes wanted a processor over the last minute, where the system says so."""
    with contextlib.suppress(AttributeError, OSError):
        return os.getloadavg()[0]
    return None


def memory_bytes() -> tuple[int, int] | None:
    """Return the machine's memory and how much of it can be had, or None where the system does not say so."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in _MEMINFO.read_text(encoding="ascii", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key in ("MemTotal", "MemAvailable"):
                found[key] = 1024 * int(value.split()[0])
    return (found["MemTotal"], found["MemAvailable"]) if len(found) == 2 else None


def installed(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed, without importing any.

    >>> "numpy" in installed(["numpy", "no-such-package"]), "no-such-package" in installed(["no-such-package"])
    (True, False)
    """
    found: dict[str, str] = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
