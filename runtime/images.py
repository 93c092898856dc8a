"""Samples as pictures: to bytes, laid out in a grid, as PNG."""

from __future__ import annotations

import math
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, NonFiniteError, OptionError

_TILE = 64
_LINE = 96
_MOST_PIXELS = 100_000_000


def to_uint8(samples: NDArray[Any], data_range: tuple[float, float] = (-1.0, 1.0)) -> NDArray[np.uint8]:
    """Map `data_range` to 0..255, round, and cut off what lies outside.

    >>> to_uint8(np.array([-1.0, 0.0, 1.0, 3.0])).tolist()
    [0, 128, 255, 255]
    """
    low, high = data_range
    if not np.isfinite(samples).all():
        raise NonFiniteError("the samples hold NaN or infinity", expected="finite numbers")
    unit = (np.asarray(samples, np.float64) - low) / (high - low)
    return np.rint(unit.clip(0.0, 1.0) * 255.0).astype(np.uint8)


def check_picture(shape: tuple[int, ...]) -> None:
    """Raise ArrayError unless samples of this shape, without the batch axis, can be shown as pictures."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ArrayError(
            "samples of this shape are no pictures",
            got=shape,
            expected="(channels, height, width), of 1 or 3 channels",
            fix="write them as numbers: -o samples.npy",
        )


def check_layout(columns: int | None, scale: int | None) -> None:
    """Raise OptionError for a grid or a scale that cannot be laid out."""
    for name, value in (("grid", columns), ("scale", scale)):
        if value is not None and value < 1:
            raise OptionError(f"{name} is out of range", got=value, expected="a whole number of at least 1")


def plan_sheet(
    batch: int, shape: tuple[int, ...], *, columns: int | None = None, scale: int | None = None
) -> tuple[int, int, int]:
    """Return the rows, columns and scale of a sheet; raises where it cannot be laid out or grows beyond measure.

    >>> plan_sheet(3, (1, 8, 8), columns=2)
    (2, 2, 8)
    """
    check_picture(shape)
    _, height, width = shape
    columns = math.ceil(math.sqrt(batch)) if columns is None else columns
    scale = -(-_TILE // min(height, width)) if scale is None else scale
    check_layout(columns, scale)
    columns = min(columns, batch)
    rows = -(-batch // columns)
    tall, wide = (rows * (height + 1) - 1) * scale, (columns * (width + 1) - 1) * scale
    if tall * wide > _MOST_PIXELS:
        raise OptionError(
            "the sheet of pictures is too large",
            got=f"{wide} x {tall} pixels, for a batch of {batch} at scale {scale}",
            expected=f"at most {_MOST_PIXELS // 1_000_000} megapixels",
            fix="choose a smaller --scale or --batch, or write numbers: -o samples.npy",
        )
    return rows, columns, scale


def layout(pictures: NDArray[np.uint8], *, columns: int | None = None, scale: int | None = None) -> NDArray[np.uint8]:
    """Lay pictures (batch, channels, height, width) out row by row as one (height, width, channels) image.

    `columns` is by default as near to a square as it gets; `scale` repeats each pixel, by default so often that a
    picture has a side of at least 64. A grey line as wide as a pixel parts the pictures; cells left over are black.

    >>> layout(np.zeros((3, 1, 8, 8), np.uint8), columns=2, scale=1).shape
    (17, 17, 1)
    """
    batch, channels, height, width = pictures.shape
    rows, columns, scale = plan_sheet(batch, pictures.shape[1:], columns=columns, scale=scale)
    cells = np.full((rows * columns, channels, height + 1, width + 1), _LINE, np.uint8)
    cells[:, :, :height, :width] = 0
    cells[:batch, :, :height, :width] = pictures
    sheet = cells.reshape(rows, columns, channels, height + 1, width + 1).transpose(0, 3, 1, 4, 2)
    image = sheet.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def write_png(stream: BinaryIO, image: NDArray[np.uint8]) -> None:
    """Write an image (height, width, channels) as PNG."""
    from PIL import Image

    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, format="PNG")
