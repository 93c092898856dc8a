"""Inpainting with a network that was not trained for it: by replacement, and with RePaint's resampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.runtime.editing.arrays import check_images, check_mask
from dpmrt.runtime.editing.known import KnownRegion
from dpmrt.runtime.editing.request import noised, noises, part_plan, split, stream_beside
from dpmrt.runtime.pipeline import Pipeline
from dpmrt.solvers_np import SOLVERS, StepPlan
from dpmrt.solvers_np.options import one_of
from dpmrt.solvers_np.plans.repaint import repaint as with_jumps

#: RePaint's own, where none is asked for
_REPAINTS = "ddpm"


def inpaint(
    pipeline: Pipeline,
    images: NDArray[Any],
    mask: NDArray[Any],
    *,
    strength: float = 1.0,
    repaint: tuple[int, int] | None = None,
    known_noise: str | None = None,
    batch: int | None = None,
    seed: int | Sequence[int] = 0,
    steps: int | None = None,
    solver: str | None = None,
    x_T: NDArray[Any] | None = None,
    noise: Any = None,
    **request: Any,
) -> NDArray[np.float32]:
    """Paint `images` anew where `mask` is 1, and keep them exactly where it is 0.

    After each step what is known is put back, noised to the step's level: with one noise for the whole run
    (`known_noise="fixed"`, as diffusers' pipelines) or with fresh noise each time ("fresh", as RePaint). `repaint`,
    (jump_length, times), is RePaint: every `jump_length` steps are taken so many times, with noise added in between,
    so that both parts come to agree; its solver is ddpm unless given, and keeps nothing from earlier steps. Below
    `strength` 1 the part to paint starts from the image as well. `request` is as of `image_to_image`.

    >>> from dpmrt.runtime import load
    >>> with load("digits") as pipeline:
    ...     eight = pipeline.sample(1, seed=1, label=8, steps=5)
    ...     mask = np.zeros((16, 16)); mask[:8] = 1
    ...     again = inpaint(pipeline, eight, mask, steps=6, repaint=(2, 3))
    >>> bool((again[..., 8:, :] == eight[..., 8:, :]).all())
    True
    """
    x0 = check_images(pipeline, images, batch)
    painted = check_mask(mask, x0.shape)
    parts = split(request)
    plan = inpainting_plan(pipeline, strength, repaint, steps, solver, parts.options)
    if known_noise is None:
        known_noise = "fixed" if repaint is None else "fresh"
    one_of("known_noise", known_noise, ("fixed", "fresh"))
    drawn = noises(seed, x0.shape, x_T, noise, plan.draws)
    start = noised(x0, drawn.first, plan.start) if strength != 1 else drawn.first * np.float32(plan.init_scale)
    region = KnownRegion(x0, painted, drawn.first if known_noise == "fixed" else stream_beside(seed))
    return pipeline.sample(
        len(x0),
        plan=plan,
        start=start,
        noise=drawn.later if plan.stochastic else noise,
        hooks=[*parts.hooks, region],
        **parts.sampling,
    )


def inpainting_plan(
    pipeline: Pipeline,
    strength: float,
    repaint: tuple[int, int] | None,
    steps: int | None,
    solver: str | None,
    options: Any,
) -> StepPlan:
    """Compile the plan that `inpaint` follows."""
    if repaint is None:
        return part_plan(pipeline, strength, steps, solver, options)
    if not isinstance(repaint, (tuple, list)) or len(repaint) != 2:
        raise OptionError(
            "repaint is no pair", got=repr(repaint), expected="(jump_length, times)", fix="repaint=(10, 10)"
        )
    plan = part_plan(pipeline, strength, steps, _REPAINTS if solver is None else solver, options)
    return with_jumps(plan, *repaint, calls=SOLVERS[plan.meta["solver"]].most_calls)
