"""Writing JSON files that people read."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dpmrt.files import atomic_write


def write_json(path: Path, content: msgspec.Struct) -> Path:
    """Write a struct as indented JSON; what stood at `path` is replaced in one step."""
    with atomic_write(path) as stream:
        stream.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    return path
