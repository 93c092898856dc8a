"""Steps solved for where they came from, by fixed-point iterations with Anderson's acceleration.

As Pan et al. 2023 (AIDI) invert DDIM; here for any solver whose steps are linear in one network call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.runtime.drivers import NetworkModel
from dpmrt.runtime.editing.arrays import Array, Floats
from dpmrt.solvers_np import Callback, StepEvent, StepPlan
from dpmrt.solvers_np.execution.events import tell
from dpmrt.solvers_np.plans.parts import one_step_entries

#: how many earlier iterations Anderson's acceleration looks back on
_DEPTH = 3


class LinearStep(NamedTuple):
    """A step y = a x + b network(scale x, t)."""

    t: float
    scale: float
    a: float
    b: float


def ascend(
    steps: Sequence[LinearStep],
    model: NetworkModel,
    x0: Floats,
    iterations: int,
    callback: Callback | None = None,
) -> tuple[Floats, float]:
    """Return the state from which the steps lead to `x0`, and the largest change that a last iteration made.

    The model is one for the plan of the steps.

    A step y = a x + b network(x, t) came from the x that fulfils x = (y - b network(x, t)) / a; the first guess is
    the next lower state. The change is told as a share of the state's spread.
    """
    x, worst, calls = x0.astype(np.float64), 0.0, len(steps) * iterations
    for k, (t, scale, a, b) in enumerate(reversed(steps)):
        y, change, guess = x, 0.0, _Anderson()
        model.take_call(len(steps) - 1 - k)
        for turn in range(iterations):
            raw = model((scale * x).astype(np.float32), t)
            moved: Array = (y - b * raw) / a
            change = float(np.abs(moved - x).max() / max(float(moved.std()), 1e-12))
            if not np.isfinite(change) or change > 1e6:
                raise OptionError(
                    "the fixed-point iterations ran away",
                    got=f"t = {t:g}, iteration {turn + 1}",
                    expected="steps so short that the network changes little over one",
                    fix="ask for more steps, less guidance, or iterations=0",
                )
            x = guess.next(x, moved)
            if callback is not None:
                tell(callback, StepEvent(k * iterations + turn, calls, t, x))
        worst = max(worst, change)
    return x.astype(np.float32), worst


class _Anderson:
    """Anderson's acceleration, sample by sample: the mixture of the last iterates whose residuals cancel best."""

    def __init__(self) -> None:
        self._past: list[tuple[Array, Array]] = []

    def next(self, x: Array, moved: Array) -> Array:
        """Return the next guess, after `x` was mapped to `moved`."""
        self._past = [*self._past, (moved, moved - x)][-_DEPTH - 1 :]
        if len(self._past) == 1:
            return moved
        (last, residual), earlier = self._past[-1], self._past[:-1]
        found = np.empty_like(last)
        for i in range(len(x)):
            slopes = np.stack([(residual[i] - r[i]).ravel() for _, r in earlier], axis=1)
            weights = np.linalg.lstsq(slopes, residual[i].ravel(), rcond=1e-10)[0]
            found[i] = last[i] - sum(w * (last[i] - m[i]) for w, (m, _) in zip(weights, earlier))
        return found


def linear_steps(plan: StepPlan) -> list[LinearStep]:
    """Return the steps of a plan that are linear in one network call each, or say why they are not."""
    one_step_entries(plan, 1, "an inversion by iterations")
    if (plan.out < 0).any() or (plan.instruction >= 0).any():
        raise OptionError(
            "an inversion by iterations needs steps that are linear in one network call",
            got="a plan that limits x0, or has rows without a call",
            expected="ddim, euler, or dpmsolver++ with order=1, without clipping",
        )
    return [_step(plan, row) for row in range(plan.rows)]


def _step(plan: StepPlan, row: int) -> LinearStep:
    slot, out = int(plan.quantity[row]), int(plan.out[row])
    # what is in the two slots, as weights of (state, raw output)
    state, raw = (float(plan.restore[row, 1]) * plan.convert[row]).tolist()
    held = {out: (0.0, 1.0), slot: (float(plan.restore[row, 0]) + state, raw)}
    a = float(plan.weights[row, 0]) + sum(float(plan.weights[row, 1 + k]) * held[k][0] for k in held)
    b = sum(float(plan.weights[row, 1 + k]) * held[k][1] for k in held)
    return LinearStep(float(plan.t[row]), float(plan.in_scale[row]), a, b)
