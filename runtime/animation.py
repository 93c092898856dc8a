"""Animations: frames as an animated PNG, which every browser shows, and strips of frames as one picture."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.images import layout, plan_sheet, to_uint8
from dpmrt.runtime.request import check_whole
from dpmrt.solvers_np.options import finite_number

Pixels = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = {1: 0, 3: 2}
_MOST_PIXELS = 400_000_000
_FASTEST, _SLOWEST = 1000, 0.01


def write_apng(stream: BinaryIO, frames: Pixels, *, fps: float = 10.0, loops: int = 0) -> None:
    """Write frames (count, height, width, channels), grey or RGB, as an animated PNG; 0 loops are without end.

    A viewer that knows no animation shows the first frame.

    >>> import io
    >>> stream = io.BytesIO()
    >>> write_apng(stream, np.zeros((3, 4, 4, 1), np.uint8), fps=5)
    >>> b"acTL" in stream.getvalue()
    True
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in _COLOUR or 0 in frames.shape:
        raise ArrayError(
            "these are no frames of an animation",
            got=f"{frames.dtype}{frames.shape}",
            expected="uint8 (count, height, width, channels), of 1 or 3 channels",
        )
    seconds = check_fps(fps)
    loops = check_whole("loops", loops, 0, 2**31 - 1)
    count, height, width, channels = frames.shape
    stream.write(_SIGNATURE)
    _chunk(stream, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _COLOUR[channels], 0, 0, 0))
    _chunk(stream, b"acTL", struct.pack(">II", count, loops))
    number = 0
    for k, frame in enumerate(frames):
        control = struct.pack(">IIIIIHHBB", number, width, height, 0, 0, seconds.numerator, seconds.denominator, 0, 0)
        _chunk(stream, b"fcTL", control)
        number += 1
        packed = _packed(frame)
        if k == 0:
            _chunk(stream, b"IDAT", packed)
        else:
            _chunk(stream, b"fdAT", struct.pack(">I", number) + packed)
            number += 1
    _chunk(stream, b"IEND", b"")


def check_fps(fps: object) -> Fraction:
    """Return how long a frame is shown, in seconds, as two numbers of sixteen bits."""
    number = finite_number(fps)
    if number is None or not _SLOWEST <= number <= _FASTEST:
        raise OptionError(
            "fps is out of range", got=repr(fps), expected=f"{_SLOWEST:g} to {_FASTEST} frames a second"
        )
    return Fraction(1 / number).limit_denominator(_FASTEST)


def _chunk(stream: BinaryIO, kind: bytes, body: bytes) -> None:
    stream.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


def _packed(frame: Pixels) -> bytes:
    """Return a frame, each line less the one above it, which packs pictures better than lines as they are."""
    height = len(frame)
    lines = frame.reshape(height, -1)
    filtered = np.empty((height, 1 + lines.shape[1]), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = lines[0]
    np.subtract(lines[1:], lines[:-1], out=filtered[1:, 1:])
    return zlib.compress(filtered.tobytes(), 9)


def check_frames(count: int, batch: int, shape: tuple[int, ...], *, columns: int | None, scale: int | None) -> None:
    """Raise where an animation of so many sheets, each of a batch of pictures, could not be laid out."""
    rows, columns, scale = plan_sheet(batch, shape, columns=columns, scale=scale)
    pixels = count * rows * columns * (shape[1] + 1) * (shape[2] + 1) * scale**2
    if pixels > _MOST_PIXELS:
        raise OptionError(
            "the animation is too large",
            got=f"{pixels // 1_000_000} megapixels in {count} frames",
            expected=f"at most {_MOST_PIXELS // 1_000_000}",
            fix="choose a smaller --scale or --batch, fewer frames, or write numbers (.npy)",
        )


def sheets(
    frames: NDArray[Any], data_range: tuple[float, float], *, columns: int | None = None, scale: int | None = None
) -> Pixels:
    """Return frames (count, batch, channels, height, width) as one sheet of the batch each.

    >>> sheets(np.zeros((5, 2, 1, 8, 8)), (-1.0, 1.0), scale=1).shape
    (5, 8, 17, 1)
    """
    check_frames(len(frames), frames.shape[1], frames.shape[2:], columns=columns, scale=scale)
    return np.stack([layout(to_uint8(f, data_range), columns=columns, scale=scale) for f in frames])


def strip(frames: NDArray[Any], data_range: tuple[float, float], *, scale: int | None = None) -> Pixels:
    """Return frames (count, batch, channels, height, width) as one picture: a row a sample, a column a frame.

    >>> strip(np.zeros((5, 2, 1, 8, 8)), (-1.0, 1.0), scale=1).shape
    (17, 44, 1)
    """
    ordered = np.swapaxes(frames, 0, 1).reshape(-1, *frames.shape[2:])
    plan_sheet(len(ordered), ordered.shape[1:], columns=len(frames), scale=scale)
    return layout(to_uint8(ordered, data_range), columns=len(frames), scale=scale)
