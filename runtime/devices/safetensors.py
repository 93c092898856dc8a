"""Tensors of safetensors files, read without the package: a length, a JSON header, and the bytes behind it."""

from __future__ import annotations

import json
import math
import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import BundleError

_MOST_HEADER = 100 << 20
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}
INDEX = ".safetensors.index.json"
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}


class RawTensor(NamedTuple):
    """A tensor as it lies in the file: bfloat16 as the 16-bit numbers that stand for it."""

    kind: str
    shape: tuple[int, ...]
    values: NDArray[Any]

    def float32(self) -> NDArray[np.float32]:
        """Return the numbers in float32."""
        if self.kind == "BF16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values.astype(np.float32)


def read_safetensors(path: Path) -> dict[str, RawTensor]:
    """Return every tensor of a file by its name; the bytes are mapped, and read when they are used."""
    try:
        with path.open("rb") as stream:
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise BundleError("the weights cannot be read", got=error, expected=f"a safetensors file {path}") from None
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MOST_HEADER, len(data) - 8):
        raise _broken(path, f"a header of {length} bytes in a file of {len(data)}")
    try:
        header = json.loads(bytes(data[8 : 8 + length]))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _tensor(entry, data[8 + length :]) for name, entry in tensors.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from None


def read_shards(index: Path) -> dict[str, RawTensor]:
    """Return every tensor that an index names, from the shards that lie beside it."""
    try:
        places = json.loads(index.read_bytes())["weight_map"]
        names = {str(name) for name in places.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{index.name} is no index of shards", got=f"{type(error).__name__}: {error}", fix="copy it again"
        ) from None
    outside = [name for name in sorted(names) if Path(name).name != name]
    if outside:
        raise BundleError(f"{index.name} names files elsewhere", got=outside[0], expected="shards beside the index")
    shards = {name: read_safetensors(index.with_name(name)) for name in sorted(names)}
    missing = [f"{name} in {shard}" for name, shard in places.items() if name not in shards[shard]]
    if missing:
        raise BundleError("a shard lacks a tensor that the index names", got=missing[0], fix="copy the shards again")
    return {name: shards[shard][name] for name, shard in places.items()}


def _tensor(entry: Any, data: memoryview) -> RawTensor:
    kind, shape = entry["dtype"], tuple(int(n) for n in entry["shape"])
    begin, end = entry["data_offsets"]
    if kind not in _SIZES:
        raise ValueError(f"a tensor of {kind}")
    if min((0, *shape)) < 0 or not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * _SIZES[kind]:
        raise ValueError(f"{kind}{list(shape)} at {begin}:{end} of {len(data)} bytes")
    return RawTensor(kind, shape, np.frombuffer(data[begin:end], _DTYPES[kind]).reshape(shape))


def _broken(path: Path, got: str) -> BundleError:
    return BundleError(f"{path.name} is no whole safetensors file", got=got, fix="copy it again from where it came")
