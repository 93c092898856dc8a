"""Data to measure over: an array, a .npy file, or a folder of .npy and .png files, looked at before anything runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import hash_file
from dpmrt.errors import ArrayError
from dpmrt.runtime.request import check_array

Array = NDArray[Any]
#: one sample's, a text for an axis that the network leaves open
Shape: TypeAlias = "tuple[int | str, ...]"

#: rounding may carry a number over the end of the data's range, by this part of its width
_SLACK = 1e-3
_KINDS = (".npy", ".png")
_EXPECTED = "an array (n, *shape) in a .npy, or a folder of .npy and .png files"


class Chosen(NamedTuple):
    """The samples that are measured over, in float32, and where among all of the data they were."""

    samples: NDArray[np.float32]
    rows: NDArray[np.int64]
    total: int
    digest: str
    name: str


def choose_data(
    data: str | Path | Array, declared: Shape, data_range: tuple[float, float], *, samples: int, seed: int
) -> Chosen:
    """Take `samples` of the data, whose shape fits the one that the network declares; `seed` says which.

    Whole numbers of 8 bits are pictures, 0 to 255 over `data_range`; others lie inside of it.

    >>> data = np.linspace(-1, 1, 12).reshape(3, 1, 2, 2)
    >>> choose_data(data, (1, 2, 2), (-1.0, 1.0), samples=2, seed=0).samples.shape
    (2, 1, 2, 2)
    """
    parts, digest, name = _open(data)
    shape = _shape_of(*parts[0], declared)
    counts = [_count(part, shape, where) for part, where in parts]
    total = sum(counts)
    if samples > total:
        raise ArrayError(
            "there are fewer data than samples asked for",
            got=f"{total} in {name}",
            expected=f"at least {samples}",
            fix=f"ask for fewer (--samples {total}), or give more data" if total > 1 else "give more data",
        )
    rows = np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(total)[:samples])
    taken, first = [], 0
    for (part, where), count in zip(parts, counts):
        inside = rows[(rows >= first) & (rows < first + count)] - first
        if len(inside):
            array = _load(part)
            array = array[None] if array.ndim == len(shape) else array
            taken.append(_scaled(array[inside], data_range, where))
        first += count
    return Chosen(np.concatenate(taken), rows, total, digest, name)


def _open(data: str | Path | Array) -> tuple[Sequence[tuple[Path | Array, str]], str, str]:
    """Return arrays or files with what to call them, one hash of all, and the name of the whole."""
    if not isinstance(data, (str, os.PathLike)):
        plain = np.ascontiguousarray(check_array("the data", data))
        head = f"{plain.dtype.str}{plain.shape}".encode()
        return [(plain, "the data")], hashlib.sha256(head + plain.tobytes()).hexdigest(), "an array"
    path = Path(data)
    if path.is_file():
        if path.suffix.lower() not in _KINDS:
            raise ArrayError("the data is of an unknown kind", got=path, expected=_EXPECTED)
        return [(path, str(path))], hash_file(path), path.name
    if not path.is_dir():
        raise ArrayError("there is no data here", got=path, expected=_EXPECTED)
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _KINDS)
    if not files:
        raise ArrayError("the folder holds no data", got=path, expected="files that end in .npy or .png")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{hash_file(file)}\n".encode())
    return [(file, str(file)) for file in files], digest.hexdigest(), path.name


def _load(part: Path | Array) -> Array:
    if isinstance(part, np.ndarray):
        return part
    if part.suffix.lower() == ".png":
        return _picture(part)
    try:
        array = np.load(part, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArrayError("a file of the data cannot be read", got=f"{part}: {error}", expected=_EXPECTED) from None
    if not isinstance(array, np.ndarray):
        raise ArrayError("a file of the data is no single array", got=part, expected=_EXPECTED)
    return array


def _picture(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "RGB"):
                raise ArrayError(
                    "a picture of the data has another kind of pixels",
                    got=f"{path}: mode {image.mode}",
                    expected="8 bits of grey (L) or of red, green and blue (RGB)",
                    fix="convert it, or give arrays (.npy)",
                )
            pixels = np.asarray(image)
    except OSError as error:
        raise ArrayError("a picture of the data cannot be read", got=f"{path}: {error}", expected="a PNG") from None
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _shape_of(part: Path | Array, where: str, declared: Shape) -> tuple[int, ...]:
    """Return the shape of one sample, whose open axes are those of the first part."""
    found = _load(part).shape
    shape = found[-len(declared) :] if len(found) >= len(declared) else found
    fits = len(shape) == len(declared) and all(a == b for a, b in zip(shape, declared) if isinstance(b, int))
    if not fits or len(found) > len(declared) + 1:
        raise _misfit(found, where, declared)
    return shape


def _misfit(found: tuple[int, ...], where: str, declared: Shape) -> ArrayError:
    return ArrayError(
        "the data has another shape than the network's samples",
        got=f"{found} in {where}",
        expected=f"(n, {', '.join(map(str, declared))})",
    )


def _count(part: Path | Array, shape: tuple[int, ...], where: str) -> int:
    array = _load(part)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise ArrayError(
            "the data has the wrong dtype",
            got=f"{array.dtype} in {where}",
            expected="floating-point numbers, or uint8 for pictures",
        )
    if array.shape == shape:
        return 1
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape:
        return len(array)
    raise _misfit(array.shape, where, shape)


def _scaled(array: Array, data_range: tuple[float, float], where: str) -> NDArray[np.float32]:
    low, high = data_range
    if array.dtype == np.uint8:
        return np.asarray(low + array.astype(np.float32) * np.float32((high - low) / 255), np.float32)
    if not np.isfinite(array).all():
        raise ArrayError("the data holds NaN or infinity", got=where, expected="finite numbers")
    slack = _SLACK * (high - low)
    if array.min() < low - slack or array.max() > high + slack:
        raise ArrayError(
            "the data lies outside of the range that the network was trained on",
            got=f"{array.min():g} to {array.max():g} in {where}",
            expected=f"{low:g} to {high:g}, the bundle's data_range",
            fix="scale it as in training; pictures of 0 to 255 may be given as uint8",
        )
    return np.asarray(array, np.float32)
