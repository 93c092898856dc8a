"""A file of kernel timings that builds share, as trtexec's --timingCacheFile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dpmrt.files import atomic_write


def load_timing_cache(config: Any, path: Path) -> None:
    """Give a builder configuration the timings in a file; one that is absent or of another TensorRT is begun anew."""
    try:
        known = path.read_bytes()
    except FileNotFoundError:
        known = b""
    for content in (known, b""):
        cache = config.create_timing_cache(content)
        # False where the timings are of another device or version: they would slow the engine down.
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def save_timing_cache(config: Any, path: Path) -> None:
    """Write the timings that a build ended with; the file appears whole."""
    cache = config.get_timing_cache()
    if cache is not None:
        with atomic_write(path) as stream:
            stream.write(memoryview(cache.serialize()))
