"""trace_scheduler: a scheduler object, whoever wrote it, compiled to a StepPlan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import TraceError
from dpmrt.export.realisation import Realisation, realise, slots_of
from dpmrt.export.trace_basis import Recording, Tracer
from dpmrt.export.trace_levels import conversions, levels
from dpmrt.export.trace_memory import Moment
from dpmrt.solvers_np.options import whole
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.rows import RowList
from dpmrt.solvers_np.prediction import PREDICTIONS

Floats = NDArray[np.float64]

#: what may be left unspanned of a state, loosest first, and the drift that the finished plan may have
_TOLERANCES = {True: ((1e-8, 1e-9, 1e-10, 1e-11, 1e-12), 1e-10), False: ((1e-4, 1e-5, 1e-6, 1e-7, 1e-8), 1e-5)}


def trace_scheduler(
    scheduler: Any,
    steps: int | None,
    *,
    double: bool = True,
    step_options: Mapping[str, Any] | None = None,
    **set_timesteps_kwargs: Any,
) -> StepPlan:
    """Compile a scheduler object by running a copy of it once, on basis vectors in place of latents.

    Serves diffusers' schedulers and any object with their interface: `set_timesteps`, `timesteps`,
    `step(model_output, t, sample)` and, if it has one, `scale_model_input`. `step_options` go to `step` (as eta),
    the rest to `set_timesteps`; `steps` is None where these bring times of their own. With `double` it computes in
    float64, from the tables it has; without, in the precision that it chooses itself. The plan starts where the
    scheduler's own loop does, from noise times `init_noise_sigma`. A scheduler that is not linear is refused, with
    the step at which it showed.

    >>> from diffusers import EulerDiscreteScheduler
    >>> plan = trace_scheduler(EulerDiscreteScheduler(), 5)
    >>> plan.calls, plan.slots
    (5, 1)
    """
    if steps is not None:
        steps = whole("steps", steps, 1)
    if step_options is not None and not isinstance(step_options, Mapping):
        raise TraceError(
            "step_options is no mapping",
            got=repr(step_options),
            expected="keyword arguments of the scheduler's step",
            fix='pass step_options={"eta": 0.5}',
        )
    recording = Tracer(scheduler, steps, set_timesteps_kwargs, step_options or {}, double).record()
    level = levels(recording)
    moments, order = _moments(recording, level)
    tolerances, limit = _TOLERANCES[double]
    found = realise(moments, tolerances, limit)
    if not found.drift <= limit:
        raise TraceError(
            f"{type(scheduler).__name__}: the weights are too ill-conditioned to be split into rows",
            got=f"a plan whose states drift by {found.drift:.1e}",
            expected=f"at most {limit:.0e}",
            fix="trace it with fewer steps, or with another spacing of its times",
        )
    plan = _plan(recording, level, found, order)
    return dataclasses.replace(plan, meta={**plan.meta, "steps": plan.calls if steps is None else steps})


def _moments(recording: Recording, level: Floats) -> tuple[list[Moment], list[int]]:
    """Order columns as they are seen, and give every noise a row, that in which it first shows.

    Also return which of the scheduler's draws the plan asks for, in its order.
    """
    states, calls = recording.states, recording.calls
    shows = [np.flatnonzero(states[:, 1 + calls + k]) for k in range(states.shape[1] - 1 - calls)]
    columns, shape, order = [0], [], []
    for call in range(calls):
        columns.append(1 + call)
        output: int | None = len(columns) - 1
        noises: list[int | None] = [k for k, seen in enumerate(shows) if seen.size and seen[0] == call + 1]
        for k in noises or [None]:
            if k is not None:
                columns.append(1 + calls + k)
                order.append(k)
            shape.append((call, output, None if k is None else len(columns) - 1, len(columns)))
            output = None
    moments = []
    for call, output, noise, seen in shape:
        after = states[call + 1][columns]
        # Noises that come together come one after another: the others' rows follow.
        after[seen:] = 0.0
        moments.append(Moment(output, noise, seen, after, conversions(*level[call].tolist())))
    return moments, order


def _plan(recording: Recording, level: Floats, found: Realisation, order: list[int]) -> StepPlan:
    slots, count = slots_of(found.rows)
    share = level[:, 1] ** 2 / (level**2).sum(axis=1)
    table, draws, call = RowList(max(count, 1)), iter(order), -1
    for moment, row in zip(found.moments, found.rows):
        call += moment.call is not None
        # Where a stage has already been to the level that the noise leads to, it acts from the call before.
        differ = np.flatnonzero(np.abs(share[: call + 1] - share[call + 1]) > 1e-12)
        span = (float(share[differ[-1] if differ.size else call]), float(share[call + 1]))
        if moment.noise is not None:
            span = recording.spans[next(draws)] or span
        after: dict[str, Any] = {
            "state": row.state,
            "history": {slots[s]: weight for s, weight in row.history.items()},
            "noise": row.noise,
            "span": span if row.noise else (0.0, 0.0),
            "keep": next((slots[s] for s in row.made if not s.output and s in slots), -1),
        }
        if moment.call is None:
            table.move(**after)
            continue
        quantity = next(s for s in row.made if s.output)
        table.call(
            float(recording.times[call]),
            slots[quantity],
            level=(float(level[call, 0]), float(level[call, 1])),
            in_scale=float(recording.in_scale[call]),
            convert=(quantity.state, quantity.output),
            **after,
        )
    return table.plan(
        init_scale=_init_scale(recording.scheduler),
        end=(float(level[-1, 0]), float(level[-1, 1])),
        **_meta(recording, order),
    )


def _init_scale(scheduler: Any) -> float:
    scale = float(getattr(scheduler, "init_noise_sigma", 1.0))
    if not np.isfinite(scale):
        raise TraceError("init_noise_sigma is not finite", got=scale, expected="what unit noise is multiplied by")
    return scale


def _meta(recording: Recording, order: list[int]) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "scheduler": type(recording.scheduler).__name__,
        "solver": "traced",
    }
    config = getattr(recording.scheduler, "config", None)
    prediction = config.get("prediction_type") if isinstance(config, Mapping) else None
    if prediction in PREDICTIONS:
        meta["prediction"] = prediction
    if order != list(range(len(order))):
        meta["draws"] = order
    return meta
