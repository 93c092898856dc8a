"""Inversion: from samples to the noise that leads to them, and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.runtime.editing.arrays import Floats, check_images
from dpmrt.runtime.editing.fixed_point import ascend, linear_steps
from dpmrt.runtime.editing.request import Parts, refuse_driver, split
from dpmrt.runtime.pipeline import Pipeline
from dpmrt.runtime.plans import settle_plan
from dpmrt.runtime.request import check_whole
from dpmrt.runtime.run import settle_run
from dpmrt.solvers_np import StepPlan, compile_inverse, schedule_from_diffusers
from dpmrt.solvers_np.from_diffusers.inverses import INVERSES, inverse_pair

_SOLVER = "ddim"
#: what asks for a classifier
_GUIDES = ("classifier_scale", "classifier_label", "classifier_mode")
#: a last change beyond this share of the state's spread is worth a word
_SETTLED = 1e-3


@dataclass(frozen=True)
class Reconstruction:
    """Noise, what was sampled from it again, and the root mean square of the difference to each image."""

    noise: NDArray[np.float32]
    images: NDArray[np.float32]
    error: NDArray[np.float64]


def invert(
    pipeline: Pipeline,
    images: NDArray[Any],
    *,
    steps: int | None = None,
    solver: str = _SOLVER,
    iterations: int = 0,
    **request: Any,
) -> NDArray[np.float32]:
    """Return the initial noise (batch, *shape) from which the same solver, steps and conditions lead to `images`.

    The solver's steps are taken upwards, along the grid that it samples on: "ddim", "dpmsolver++", or any other
    without noise of its own; "DDIMInverseScheduler" and "DPMSolverMultistepInverseScheduler" are diffusers' inverses.
    The error falls as the steps grow in number. With `iterations`, each step of a solver of one call is solved for
    where it came from, by so many fixed-point iterations, and the image is found again up to rounding. Guidance
    beyond 1 makes inverting harder, and ends sooner with `iterations`. `request` is as of `image_to_image`, and
    means what it means for sampling: progress counts from the noise, and a scale a call is for sampling's calls. A
    classifier guides without `iterations` only.

    >>> from dpmrt.runtime import load
    >>> with load("digits") as pipeline:
    ...     digit = pipeline.sample(1, seed=1, label=4, guidance=1, steps=10, solver="ddim")
    ...     noise = invert(pipeline, digit, label=4, guidance=1, steps=10, iterations=8)
    ...     again = pipeline.sample(1, x_T=noise, label=4, guidance=1, steps=10, solver="ddim")
    >>> bool(abs(again - digit).mean() < 0.02)
    True
    """
    return _invert(pipeline, check_images(pipeline, images), steps, solver, iterations, split(request))


def reconstruct(
    pipeline: Pipeline,
    images: NDArray[Any],
    *,
    steps: int | None = None,
    solver: str = _SOLVER,
    iterations: int = 0,
    **request: Any,
) -> Reconstruction:
    """Invert `images`, and sample again from the noise that was found; arguments are those of `invert`.

    >>> from dpmrt.runtime import load
    >>> with load("digits") as pipeline:
    ...     digit = pipeline.sample(1, seed=1, label=4, guidance=1, steps=10)
    ...     found = reconstruct(pipeline, digit, label=4, guidance=1, steps=40, solver="dpmsolver++")
    >>> bool(found.error[0] < 0.1)
    True
    """
    x0, parts = check_images(pipeline, images), split(request)
    noise = _invert(pipeline, x0, steps, solver, iterations, parts)
    down = _sampling_plan(pipeline, steps, solver, parts)
    back = pipeline.sample(len(x0), x_T=noise, plan=down, hooks=parts.hooks, **parts.sampling)
    difference = (back - x0).astype(np.float64).reshape(len(x0), -1)
    return Reconstruction(noise, back, np.sqrt((difference**2).mean(axis=1)))


def _invert(
    pipeline: Pipeline, x0: Floats, steps: int | None, solver: str, iterations: int, parts: Parts
) -> NDArray[np.float32]:
    refuse_driver(solver)
    iterations = check_whole("iterations", iterations, 0)
    down = _sampling_plan(pipeline, steps, solver, parts)
    if down.stochastic:
        raise OptionError(
            "a solver that adds noise cannot invert",
            got=repr(solver),
            expected="a solver without noise, as ddim or dpmsolver++",
            fix="choose another with solver=..., --solver, or leave out the option that adds noise",
        )
    scale = np.float32(down.init_scale)
    _refuse_guides(parts, iterations)
    if not iterations:
        up = inverse_plan(pipeline, steps, solver, parts.options)
        _check_way_back(pipeline, x0, up, down, parts)
        start = np.float32(up.start[0]) * x0
        done = pipeline.sample(len(x0), plan=up, start=start, hooks=parts.hooks, **parts.sampling)
        return done / scale
    if parts.hooks:
        raise OptionError(
            "an inversion by iterations takes no hooks", got="hooks", expected="iterations=0, or no hooks"
        )
    linear, callback = linear_steps(down), parts.sampling.get("callback")
    _check_way_back(pipeline, x0, down, down, parts)
    conditions = {name: value for name, value in parts.sampling.items() if name not in ("callback", *_GUIDES)}
    model = pipeline.model(len(x0), shape=x0.shape[1:], plan=down, **conditions)
    found, change = ascend(linear, model, x0, iterations, callback)
    if change > _SETTLED:
        warnings.warn(
            f"the fixed-point iterations have not settled (the last changed the state by {change:.2g} of its "
            "spread): ask for more iterations or steps, or less guidance",
            stacklevel=3,
        )
    return found / scale


def _refuse_guides(parts: Parts, iterations: int) -> None:
    """Refuse what a classifier cannot guide upwards."""
    if parts.sampling.get("classifier_mode") == "mean":
        raise OptionError(
            "a classifier has no mean to move where no noise is added, as in an inversion",
            got="classifier_mode='mean'",
            expected="'noise', which moves what the network says of eps",
            fix="classifier_mode='noise' (--classifier-mode noise), or leave it out",
        )
    if iterations and parts.sampling.get("classifier_scale") is not None:
        raise OptionError(
            "an inversion by iterations solves for the network's steps alone, without a classifier's gradient",
            got=f"classifier_scale, and iterations={iterations}",
            expected="one of them",
            fix="iterations=0 (--iterations 0), or leave out classifier_scale",
        )


def _check_way_back(pipeline: Pipeline, x0: Floats, up: StepPlan, down: StepPlan, parts: Parts) -> None:
    """Refuse, before the network runs upwards, a request that sampling could not follow downwards."""
    run = settle_run(
        pipeline.bundle,
        pipeline.classifier_gradient,
        len(x0),
        plan=down,
        x_T=x0,
        hooks=parts.hooks,
        **parts.sampling,
    )
    if run.conditions.scales.by_call and up.calls != down.calls:
        raise OptionError(
            "a scale of guidance for each network call says nothing of the way up, which has other calls",
            got=f"{down.calls} scales, and {up.calls} network calls upwards",
            expected="as many calls both ways, as of ddim or dpmsolver++, or a schedule that is no list of calls",
            fix="schedule='linear', 'cosine' or a function of progress, time or sigma",
        )


def inverse_plan(pipeline: Pipeline, steps: int | None, solver: str, options: Any) -> StepPlan:
    """Compile the plan by which `invert` goes up."""
    bundle = pipeline.bundle
    count = bundle.manifest.defaults.steps if steps is None else steps
    if solver in INVERSES:
        plan = inverse_pair(solver, bundle.scheduler_config, count, **options)[0]
    else:
        schedule = schedule_from_diffusers(bundle.scheduler_config)
        plan = compile_inverse(solver, schedule, count, **{"prediction": bundle.manifest.prediction, **options})
    return settle_plan(bundle, plan, None, None, {})


def _sampling_plan(pipeline: Pipeline, steps: int | None, solver: str, parts: Parts) -> StepPlan:
    if solver not in INVERSES:
        return pipeline.plan(steps, solver, **parts.options)
    count = pipeline.manifest.defaults.steps if steps is None else steps
    return inverse_pair(solver, pipeline.bundle.scheduler_config, count, **parts.options)[1]
