"""Image to image: a picture is noised part of the way, and sampled from there (SDEdit, Meng et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.runtime.editing.arrays import check_images
from dpmrt.runtime.editing.request import noised, noises, part_plan, split
from dpmrt.runtime.pipeline import Pipeline


def image_to_image(
    pipeline: Pipeline,
    images: NDArray[Any],
    strength: float = 0.6,
    *,
    batch: int | None = None,
    seed: int | Sequence[int] = 0,
    steps: int | None = None,
    solver: str | None = None,
    x_T: NDArray[Any] | None = None,
    noise: Any = None,
    **request: Any,
) -> NDArray[np.float32]:
    """Return variations of `images`, (batch, *shape): the more `strength`, 0 to 1, the less is left of them.

    The last int(steps * strength) steps are taken, from the image at their first level of noise, as diffusers'
    image-to-image pipelines do; the noise is `x_T`, or the first that `seed` draws. One image may be repeated to a
    `batch`. `request` is what `Pipeline.sample` takes: label, conditions, guidance of any kind, hooks, options
    of the solver.

    >>> from dpmrt.runtime import load
    >>> with load("digits") as pipeline:
    ...     three = pipeline.sample(1, seed=1, label=3, steps=5)
    ...     image_to_image(pipeline, three, 0.5, batch=2, label=8, steps=10).shape
    (2, 1, 16, 16)
    """
    x0 = check_images(pipeline, images, batch)
    parts = split(request)
    plan = part_plan(pipeline, strength, steps, solver, parts.options)
    drawn = noises(seed, x0.shape, x_T, noise, plan.draws)
    return pipeline.sample(
        len(x0),
        plan=plan,
        start=noised(x0, drawn.first, plan.start),
        noise=drawn.later if plan.stochastic else noise,
        hooks=parts.hooks,
        **parts.sampling,
    )
