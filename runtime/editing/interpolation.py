"""Interpolation between noises and between conditions: the frames of a path from one sample to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.editing.request import refuse_driver, split
from dpmrt.runtime.pipeline import Pipeline
from dpmrt.runtime.request import check_array, check_whole
from dpmrt.solvers_np import make_noise, randn
from dpmrt.solvers_np.options import choose

Array = NDArray[Any]
#: noises whose angle's sine is below this are as good as parallel
_PARALLEL = 1e-4


def slerp(a: Array, b: Array, share: float) -> Array:
    """Return the point `share` of the way from one noise to another along the great circle through both.

    The length goes over evenly, so that what is on the way is as long as noise is.

    >>> slerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 0.5).round(4).tolist()
    [0.7071, 0.7071]
    """
    lengths = [float(np.linalg.norm(v.astype(np.float64))) for v in (a, b)]
    if min(lengths) == 0:
        return lerp(a, b, share)
    cosine = float(np.vdot(a.astype(np.float64), b)) / (lengths[0] * lengths[1])
    angle = float(np.arccos(np.clip(cosine, -1.0, 1.0)))
    if np.sin(angle) < _PARALLEL:
        return lerp(a, b, share)
    weights = np.sin((1 - share) * angle) / np.sin(angle), np.sin(share * angle) / np.sin(angle)
    direction = weights[0] * a / lengths[0] + weights[1] * b / lengths[1]
    mixed: Array = ((1 - share) * lengths[0] + share * lengths[1]) * direction
    return mixed.astype(a.dtype)


def lerp(a: Array, b: Array, share: float) -> Array:
    """Return the point `share` of the way along the straight line, where noise has less variance.

    >>> lerp(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 0.25).tolist()
    [0.75, 0.25]
    """
    mixed: Array = ((1 - share) * a + share * b).astype(a.dtype)
    return mixed


MODES = {"slerp": slerp, "lerp": lerp}


def interpolate(
    pipeline: Pipeline,
    seeds: Sequence[int] | Sequence[Array],
    frames: int = 9,
    *,
    mode: str = "slerp",
    conditions: Mapping[str, Any] | None = None,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    **request: Any,
) -> NDArray[np.float32]:
    """Return `frames` samples, (frames, *shape), on the way from one noise to the next.

    `seeds` are two seeds or more, or noises of one sample's shape; `mode` is "slerp" or "lerp". A condition of as
    many rows as there are seeds is interpolated linearly; of one row, or of one a frame, it is taken as it is. Fresh
    noise of a stochastic solver, from `seed`, is the same in all frames.

    >>> from dpmrt.runtime import load
    >>> with load("digits") as pipeline:
    ...     interpolate(pipeline, (1, 2), frames=3, label=5, steps=5).shape
    (3, 1, 16, 16)
    """
    blend = choose("mode", mode, MODES)
    frames = check_whole("frames", frames, 2, fix="frames=9")
    refuse_driver(solver)
    keys = _keys(pipeline, seeds, shape)
    places = np.linspace(0, len(keys) - 1, frames)
    x_T = np.stack([_between(keys, place, blend) for place in places])
    parts = split(request)
    plan = pipeline.plan(steps, solver, **parts.options)
    noise = _Shared(seed) if plan.stochastic else None
    given = None if conditions is None else {n: _path(n, v, len(keys), places) for n, v in conditions.items()}
    return pipeline.sample(
        frames, plan=plan, x_T=x_T, noise=noise, conditions=given, hooks=parts.hooks, **parts.sampling
    )


class _Shared:
    """A source whose draws are the same for all samples of the batch."""

    def __init__(self, seed: int) -> None:
        self._stream = make_noise("torch-cpu", seed)

    def normal(self, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(self._stream.normal((1, *shape[1:])), shape)


def _keys(pipeline: Pipeline, seeds: Any, shape: Sequence[int] | None) -> list[Array]:
    if not isinstance(seeds, (list, tuple, np.ndarray)) or len(seeds) < 2:
        raise OptionError(
            "there is nothing to interpolate between", got=repr(seeds), expected="two seeds or noises, or more"
        )
    if all(isinstance(key, (int, np.integer)) and not isinstance(key, bool) for key in seeds):
        chosen = pipeline.sample_shape(shape=shape)
        return [randn((1, *chosen), int(key))[0] for key in seeds]
    keys = [check_array(f"noise {k}", key) for k, key in enumerate(seeds)]
    chosen = pipeline.sample_shape(x_T=keys[0][None], shape=shape)
    for k, key in enumerate(keys):
        if key.shape != chosen or key.dtype.kind != "f" or not np.isfinite(key).all():
            raise ArrayError(
                f"noise {k} is no noise of one sample",
                got=f"{key.dtype}{key.shape}",
                expected=f"finite floats {chosen}",
            )
    return [key.astype(np.float32) for key in keys]


def _between(keys: Sequence[Array], place: float, blend: Any) -> Array:
    k = min(int(place), len(keys) - 2)
    share = float(place) - k
    if share in (0.0, 1.0):
        return keys[k + int(share)]
    mixed: Array = blend(keys[k], keys[k + 1], share)
    return mixed


def _path(name: str, value: Any, keys: int, places: NDArray[np.float64]) -> Array:
    array = check_array(f"condition {name}", value)
    rows = len(array) if array.ndim else 0
    if rows != keys or rows == len(places):
        return array
    if array.dtype.kind != "f":
        raise ArrayError(
            f"condition {name} is no numbers that could be interpolated",
            got=f"{array.dtype}{array.shape}",
            expected="floats; or one row for all frames, or one a frame",
        )
    return np.stack([_between(list(array), place, lerp) for place in places])
