"""How much of a GPU's memory this process holds."""

from __future__ import annotations

import os
import subprocess
import sys

_QUERY = ("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")


def device_bytes() -> int | None:
    """Return the bytes of device memory of this process, as the driver counts them, or None for none to be known.

    The driver's count includes the context and what libraries hold, which a library's own pool does not know of.
    """
    if "cupy" not in sys.modules and "onnxruntime" not in sys.modules:
        return None
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return held_by(os.getpid(), done.stdout) if done.returncode == 0 else None


def held_by(pid: int, listing: str) -> int | None:
    """Return what a listing of processes and mebibytes says about one process.

    >>> held_by(7, "7, 512\\n9, 30\\n7, 12\\n")
    549453824
    """
    found = []
    for line in listing.splitlines():
        owner, _, mebibytes = line.partition(",")
        if owner.strip() == str(pid) and mebibytes.strip().isdigit():
            found.append(int(mebibytes) * 2**20)
    return sum(found) if found else None
