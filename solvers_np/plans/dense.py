"""A plan multiplied out: what the state holds of the initial state, of every network output and of every noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import PlanError
from dpmrt.solvers_np.plans.plan import StepPlan

Floats = NDArray[np.float64]


def dense_weights(plan: StepPlan) -> list[Floats]:
    """Return the weights of the state at each network call, and at the end, over {x_T, outputs, noises}.

    Each array has one weight for the initial state, one for each call's raw output and one for each noise, in the
    order in which the plan asks for them. Two plans with the same weights (and times and input scales) are the
    same sampler, however they buffer. A plan with instructions is not linear and is refused.

    >>> from dpmrt.solvers_np import compile_plan
    >>> from dpmrt.solvers_np.plans.dense import dense_weights
    >>> first, second, end = dense_weights(compile_plan("ddim", "linear", 2))
    >>> first.tolist(), end.shape
    ([1.0, 0.0, 0.0], (3,))
    """
    if plan.instructions:
        raise PlanError(
            "a plan with instructions is not linear",
            got=", ".join(type(instruction).__name__ for instruction in plan.instructions),
            expected="a plan without clipping, thresholding, a learned variance or a Langevin corrector",
        )
    basis = np.eye(1 + plan.calls + plan.draws)
    outputs, noises = iter(basis[1 : 1 + plan.calls]), iter(basis[1 + plan.calls :])
    state, slots = basis[0].copy(), np.zeros((plan.slots, len(basis)))
    states = []
    for row in range(plan.rows):
        out, quantity, keep = int(plan.out[row]), int(plan.quantity[row]), int(plan.keep[row])
        if out >= 0:
            states.append(state)
            slots[out] = next(outputs)
            slots[quantity] = _pair(plan.convert[row], state, slots[out])
            slots[quantity] = _pair(plan.restore[row], state, slots[quantity])
        if keep >= 0:
            slots[keep] = state
        state = plan.weights[row, 0] * state + plan.weights[row, 1:] @ slots
        if plan.noise[row] != 0:
            state = state + plan.noise[row] * next(noises)
    return [*states, state]


def _pair(weights: Floats, state: Floats, other: Floats) -> Floats:
    return np.asarray(weights[0] * state + weights[1] * other)
