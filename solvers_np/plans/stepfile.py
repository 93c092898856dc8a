"""The step file: little-endian arrays behind a JSON header, with a checksum at the end.

8 bytes   magic "DPMSTEPS"
4 bytes   version, unsigned
4 bytes   length of the header, unsigned
header    JSON: {"arrays": [{"name", "dtype", "shape"}, ...], ...}, padded with spaces to 64 bytes
arrays    in the header's order, each padded with zeros to 64 bytes
32 bytes  SHA-256 of everything before
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import PlanError
from dpmrt.files import atomic_write

MAGIC = b"DPMSTEPS"
VERSION = 2
_ALIGN = 64
_HEAD = struct.Struct("<8sII")
_MAX_BYTES = 1 << 28


def _padded(data: bytes, fill: bytes) -> bytes:
    return data + fill * (-len(data) % _ALIGN)


def pack(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a step file."""
    listed = [{"name": n, "dtype": a.dtype.newbyteorder("<").str, "shape": list(a.shape)} for n, a in arrays.items()]
    text = json.dumps({"arrays": listed, **header}, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-(_HEAD.size + len(text)) % _ALIGN)
    body = b"".join(_padded(a.astype(a.dtype.newbyteorder("<")).tobytes(), b"\0") for a in arrays.values())
    data = _HEAD.pack(MAGIC, VERSION, len(text)) + text + body
    return data + hashlib.sha256(data).digest()


def unpack(data: bytes, dtypes: Mapping[str, str], *, source: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return header and arrays of a step file whose arrays must be those of `dtypes`."""

    def refuse(what: str, got: object, expected: object) -> PlanError:
        return PlanError(f"{source} {what}", got=got, expected=expected, fix="save the plan again")

    if data[:8] != MAGIC:
        raise refuse("is not a step file", repr(data[:8]), repr(MAGIC))
    if len(data) < _HEAD.size + 32:
        raise refuse("is truncated", f"{len(data)} bytes", f"at least {_HEAD.size + 32} bytes")
    _, version, length = _HEAD.unpack_from(data)
    if version != VERSION:
        raise refuse("has a version that is not known here", version, VERSION)
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise refuse("is truncated or was altered", "another checksum", "the checksum at its end")
    try:
        header = json.loads(data[_HEAD.size : _HEAD.size + length])
        listed = [(str(e["name"]), str(e["dtype"]), tuple(int(n) for n in e["shape"])) for e in header.pop("arrays")]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise refuse(
            "has a header that cannot be read",
            f"{type(error).__name__}: {str(error)[:80]}",
            "JSON with a list of arrays",
        ) from None
    if {name: dtype for name, dtype, _ in listed} != dict(dtypes) or len(listed) != len(dtypes):
        raise refuse("holds other arrays", [name for name, _, _ in listed], list(dtypes))
    arrays: dict[str, NDArray[Any]] = {}
    offset = _HEAD.size + length
    for name, dtype, shape in listed:
        count = int(np.prod(shape, dtype=object)) if shape else 1
        size = count * np.dtype(dtype).itemsize
        if min(shape, default=0) < 0 or size > len(data) - 32 - offset:
            raise refuse(f"has no room for array {name!r}", shape, f"at most {len(data) - 32 - offset} bytes")
        arrays[name] = np.frombuffer(data, dtype=dtype, count=count, offset=offset).reshape(shape)
        offset += size + (-size % _ALIGN)
    return header, arrays


def read(path: Path) -> bytes:
    """Return the bytes of a file, or say why it cannot be read."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PlanError(f"{path} is too large for a step file", got=path.stat().st_size, expected=_MAX_BYTES)
        return path.read_bytes()
    except OSError as error:
        raise PlanError("the step file cannot be read", got=f"{path}: {error.strerror}") from None


def write(path: Path, data: bytes) -> Path:
    """Write a whole file or none."""
    with atomic_write(path) as stream:
        stream.write(data)
    return path
