"""Pictures and masks from files, as the samples that a bundle's network knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError
from dpmrt.runtime.editing.arrays import Floats
from dpmrt.runtime.images_read import Pixels, read_png
from dpmrt.runtime.npy import read_array
from dpmrt.runtime.pipeline import Pipeline

#: the share of each primary in the brightness of a pixel, in thousandths (ITU-R BT.601)
_LUMA = np.array([299, 587, 114], np.uint32)


def read_image(pipeline: Pipeline, path: str | Path) -> Floats:
    """Return the samples in a file as (batch, *shape): a .png is one picture, a .npy one sample or a batch.

    Pixels, and whole numbers of eight bits in a .npy, are mapped to the bundle's data range. Colour becomes grey, or
    grey colour, as the network has it. A picture whose pixels were repeated, as `dpmrt sample` enlarges them, is
    read at the network's size.

    >>> import tempfile
    >>> from dpmrt.runtime import load
    >>> from dpmrt.runtime.images import write_png
    >>> with load("digits") as pipeline, tempfile.TemporaryDirectory() as folder:
    ...     with open(f"{folder}/a.png", "wb") as stream:
    ...         write_png(stream, np.full((16, 16, 1), 255, np.uint8))
    ...     picture = read_image(pipeline, f"{folder}/a.png")
    >>> picture.shape, float(picture.max())
    ((1, 1, 16, 16), 1.0)
    """
    path = Path(path)
    if _is_png(path):
        shape = _picture_shape(pipeline, path)
        pixels = _pixels(path, shape[0])
        return _mapped(_at_size(pixels, shape[1:], path).transpose(2, 0, 1)[None], pipeline.manifest.data_range)
    array = read_array("the image", path)
    if array.dtype == np.uint8:
        array = _mapped(array, pipeline.manifest.data_range)
    declared = pipeline.manifest.unet.sample_shape
    return array[None] if array.ndim == len(declared) else array


def read_images(pipeline: Pipeline, paths: Sequence[str | Path]) -> Floats:
    """Return the samples of several files, one after another."""
    arrays = [read_image(pipeline, path) for path in paths]
    for path, array in zip(paths, arrays):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ArrayError(
                "the images are of different shapes",
                got=f"{array.shape[1:]} in {path}",
                expected=f"{arrays[0].shape[1:]}, as in {paths[0]}",
            )
    return np.concatenate(arrays)


def read_mask(pipeline: Pipeline, path: str | Path) -> NDArray[Any]:
    """Return the mask in a file: 1 where a picture is white, 0 where black; or the numbers of a .npy."""
    path = Path(path)
    if not _is_png(path):
        return read_array("the mask", path)
    pixels = _at_size(_pixels(path, 1), _picture_shape(pipeline, path)[1:], path)
    return (pixels[..., 0] > 127).astype(np.float32)


def _is_png(path: Path) -> bool:
    if path.suffix.lower() not in (".png", ".npy"):
        raise ArrayError(
            "an image is of an unknown kind",
            got=path,
            expected="a file that ends in .png or .npy",
            fix="convert it to PNG, or save its numbers with numpy.save",
        )
    return path.suffix.lower() == ".png"


def _picture_shape(pipeline: Pipeline, path: Path) -> tuple[Any, ...]:
    """Return channels, height and width as the network declares them; a free size is a text."""
    usual, declared = pipeline.bundle.sample_shape, pipeline.manifest.unet.sample_shape
    shape = tuple(axis if isinstance(axis, int) or k else (usual or (0,))[0] for k, axis in enumerate(declared))
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ArrayError(
            "the network moves no pictures, so it takes none from a .png",
            got=path,
            expected=f"a .npy of samples ({', '.join(map(str, declared))})",
            fix="save what the network takes, as latents, with numpy.save",
        )
    return shape


def _pixels(path: Path, channels: int) -> Pixels:
    """Return the pixels of a file as (height, width, channels)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArrayError(
            "the image cannot be read", got=f"{path}: {error.strerror}", expected="a .png file"
        ) from None
    pixels = read_png(data, source=str(path))
    if pixels.shape[-1] in (2, 4):
        if (pixels[..., -1] != 255).any():
            raise ArrayError(
                f"{path} is transparent in places",
                got="alpha below 255",
                expected="a picture without transparency",
                fix="put it on a background first",
            )
        pixels = pixels[..., :-1]
    if channels == 1 and pixels.shape[-1] == 3:
        return ((pixels @ _LUMA + 500) // 1000).astype(np.uint8)[..., None]
    return np.repeat(pixels, channels, axis=-1) if pixels.shape[-1] < channels else pixels


def _at_size(pixels: Pixels, size: tuple[Any, ...], path: Path) -> Pixels:
    """Return the pixels at the network's size, where each was repeated; another size is refused later, or is free."""
    height, width = pixels.shape[:2]
    if not all(isinstance(axis, int) for axis in size) or (height, width) == size:
        return pixels
    times = height // size[0]
    if times > 1 and (height, width) == (times * size[0], times * size[1]):
        small = pixels[::times, ::times]
        if (small.repeat(times, axis=0).repeat(times, axis=1) == pixels).all():
            return small
    raise ArrayError(
        "the picture has the wrong size",
        got=f"{width} x {height} pixels in {path}",
        expected=f"{size[1]} x {size[0]}, or each of these repeated as `--scale` does",
        fix="resize it",
    )


def _mapped(pixels: NDArray[Any], data_range: tuple[float, float]) -> Floats:
    low, high = data_range
    return (low + pixels.astype(np.float64) * ((high - low) / 255)).astype(np.float32)
