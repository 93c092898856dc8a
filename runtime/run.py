"""One run of a plan, settled: all that a request asks for, checked before the network runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dpmrt.runtime.asked import settle_request
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.conditions import Conditions
from dpmrt.runtime.guidance.judge import classifier_hooks
from dpmrt.runtime.plans import settle_plan
from dpmrt.runtime.request import Labels, check_noise
from dpmrt.solvers_np import Hook, NoiseSource, StepPlan
from dpmrt.solvers_np.execution.hooks import check_hooks

Noise: TypeAlias = "NDArray[Any] | NoiseSource | Callable[[tuple[int, ...]], NDArray[Any]] | None"


@dataclass(frozen=True)
class Run:
    """A run that can be made: from the state `x`, where the plan begins, with `scales` of guidance for its calls."""

    plan: StepPlan
    batch: int
    shape: tuple[int, ...]
    conditions: Conditions
    scales: NDArray[np.float64]
    x: NDArray[Any]
    noise: Noise
    hooks: tuple[Hook, ...]


def settle_run(
    bundle: OpenBundle,
    gradient: Callable[[NDArray[Any], Any, Labels], NDArray[Any]],
    batch: int,
    *,
    steps: int | None = None,
    solver: str | None = None,
    plan: StepPlan | None = None,
    noise: Noise = None,
    hooks: Sequence[Hook] = (),
    label: Labels = None,
    classifier_scale: float | Sequence[float] | None = None,
    classifier_label: Labels = None,
    classifier_mode: str | None = None,
    options: dict[str, Any] | None = None,
    **request: Any,
) -> Run:
    """Settle what `Pipeline.sample` is asked for; `gradient` is the classifier's, `options` the solver's.

    `request` is for `settle_request`.
    """
    own = check_hooks(hooks)
    asked = settle_request(bundle, batch, label=label, **request)
    plan = settle_plan(bundle, plan, steps, solver, options or {})
    check_noise(plan, noise)
    guides = classifier_hooks(
        bundle,
        plan,
        asked.x.shape,
        gradient,
        scale=classifier_scale,
        label=classifier_label,
        mode=classifier_mode,
        usual=label,
    )
    x = asked.x
    if plan.init_scale != 1 and not asked.begun:
        x = x * x.dtype.type(plan.init_scale)
    return Run(
        plan=plan,
        batch=asked.batch,
        shape=asked.shape,
        conditions=asked.conditions,
        scales=asked.conditions.scales.table(plan),
        x=x,
        noise=asked.stream if noise is None else noise,
        hooks=(*guides, *own),
    )
