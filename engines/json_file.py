"""Writing JSON files that people read, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


def write_json(path: Path, content: msgspec.Struct) -> Path:
    """Write a struct as indented JSON; what stood at `path` is replaced in one step."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
