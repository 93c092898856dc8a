"""Pictures and masks that a caller gives, held against what the network moves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.pipeline import Pipeline
from dpmrt.runtime.request import check_array, check_whole

Array = NDArray[Any]
Floats = NDArray[np.float32]


def check_images(pipeline: Pipeline, images: Any, batch: int | None = None) -> Floats:
    """Return the samples to edit as float32 (batch, *shape); one of them is repeated to fill the batch.

    They are what the network was trained on: pictures in the bundle's data range, latents, sequences, video.
    """
    x = check_array("the image (images, --image)", images)
    if x.dtype.kind != "f":
        raise ArrayError(
            "the image has the wrong dtype",
            got=x.dtype,
            expected="a floating-point dtype, in the bundle's data range",
            fix="map pixels to the range with dpmrt.runtime.read_image, or as 2 * pixels / 255 - 1",
        )
    declared = pipeline.manifest.unet.sample_shape
    if x.ndim != len(declared) + 1 or 0 in x.shape:
        raise ArrayError(
            "the image has the wrong shape",
            got=x.shape,
            expected=f"(batch, {', '.join(map(str, declared))})",
            fix="add the batch axis: images[None]" if x.ndim == len(declared) else None,
        )
    _fits(pipeline, x)
    if not np.isfinite(x).all():
        raise ArrayError("the image holds NaN or infinity", expected="finite numbers")
    _in_range(x, pipeline.manifest.data_range)
    if batch is not None and check_whole("batch", batch, 1) != len(x):
        if len(x) > 1:
            raise ArrayError(
                "batch and images disagree",
                got=f"batch={batch}, {len(x)} images",
                expected="as many, or one image that is repeated",
            )
        x = np.repeat(x, batch, axis=0)
    return np.ascontiguousarray(x, np.float32)


def _fits(pipeline: Pipeline, x: Array) -> None:
    try:
        pipeline.sample_shape(shape=x.shape[1:])
    except ArrayError as error:
        raise ArrayError(
            "the image has the wrong shape",
            got=x.shape[1:],
            expected=pipeline.bundle.sample_shape or error.expected,
            fix="bring it to the size that the network takes",
        ) from None


def _in_range(x: Array, data_range: tuple[float, float]) -> None:
    """Refuse what are plainly pixels of another range; latents have no range, nor do sequences."""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return
    low, high = data_range
    slack = (high - low) / 2
    if x.min() < low - slack or x.max() > high + slack:
        raise ArrayError(
            "the image is out of range",
            got=f"{x.min():g} to {x.max():g}",
            expected=f"{low:g} to {high:g}, the bundle's data range",
            fix=f"map 0..255 to it: {low:g} + {high - low:g} * pixels / 255",
        )


def check_mask(mask: Any, shape: tuple[int, ...]) -> Floats:
    """Return the mask, 1 where to paint and 0 where to keep, as float32 of the samples' shape (batch, *shape).

    It is broadcast as NumPy does, from the last axis: (height, width) serves every channel and sample. Values
    between blend.
    """
    m = check_array("the mask (mask, --mask)", mask)
    if m.dtype.kind not in "bfiu":
        raise ArrayError("the mask has the wrong dtype", got=m.dtype, expected="truth values, or numbers 0 to 1")
    try:
        fits = np.broadcast_shapes(m.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ArrayError(
            "the mask has the wrong shape",
            got=m.shape,
            expected=f"{shape}, or fewer axes, as {shape[2:]}",
            fix="a mask of one a sample needs the axis of channels, too: mask[:, None]" if m.ndim > 2 else None,
        )
    m = m.astype(np.float32)
    if not (np.isfinite(m).all() and (m >= 0).all() and (m <= 1).all()):
        raise ArrayError(
            "the mask is out of range",
            got=f"{m.min():g} to {m.max():g}",
            expected="0 (keep) to 1 (paint)",
            fix="mask > 127" if np.isfinite(m).all() and m.max() > 1 else None,
        )
    whole = np.ascontiguousarray(np.broadcast_to(m, shape))
    painted = whole.reshape(len(whole), -1).max(axis=1)
    if not painted.all():
        raise ArrayError(
            "the mask is empty: there is nothing to paint",
            got=f"0 everywhere in sample {int(np.flatnonzero(painted == 0)[0])}",
            expected="1 where to paint, 0 where to keep",
            fix="turn it around: 1 - mask",
        )
    if whole.min() == 1:
        raise ArrayError(
            "the mask keeps nothing",
            got="1 everywhere",
            expected="0 where to keep the picture",
            fix="sample without an image, or turn the mask around: 1 - mask",
        )
    return whole


def check_noise_like(x_T: Any, shape: tuple[int, ...]) -> Floats:
    """Return the caller's own initial noise as float32."""
    z = check_array("the initial noise (x_T)", x_T)
    if z.dtype.kind != "f" or z.shape != shape or not np.isfinite(z).all():
        finite = z.dtype.kind != "f" or bool(np.isfinite(z).all())
        raise ArrayError(
            "the initial noise (x_T) does not fit the images" if finite else "the initial noise (x_T) holds NaN",
            got=f"{z.dtype}{z.shape}",
            expected=f"finite floats {shape}",
        )
    return z.astype(np.float32)


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return a number within bounds."""
    if (
        isinstance(value, (bool, np.bool_))
        or not isinstance(value, (int, float, np.number))
        or not low <= value <= high
    ):
        raise OptionError(f"{name} is out of range", got=repr(value), expected=f"{low:g} to {high:g}")
    return float(value)
