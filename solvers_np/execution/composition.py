"""From the columns of a plan to one small matrix a row, over {state, slots, scaled input, noise}.

The executors apply these matrices; whatever they run on, this is the part that they share.
"""

from __future__ import annotations

import dataclasses
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dpmrt.solvers_np.plans.instructions import Instruction, Langevin, NoiseInstruction
from dpmrt.solvers_np.plans.plan import StepPlan

Matrix = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each quantity lies in the matrix of buffers.

    The state lies between the first two slots: with two slots, what a step writes (the state and one slot) is then
    always a pair of neighbours, and is copied at once.
    """

    state: int
    slots: tuple[int, ...]
    input: int
    noise: int | None
    count: int

    @staticmethod
    def of(plan: StepPlan) -> Layout:
        """Return the layout that a plan needs; without scaling, the network reads the state itself."""
        state = min(1, plan.slots)
        slots = tuple(k if k < state else k + 1 for k in range(plan.slots))
        count = 1 + plan.slots
        scaled = bool((plan.in_scale != 1).any())
        noise = count + scaled if plan.stochastic else None
        return Layout(state, slots, count if scaled else state, noise, count + scaled + plan.stochastic)

    @property
    def scaled(self) -> bool:
        """Return whether the network reads a scaled copy of the state."""
        return self.input != self.state


@dataclasses.dataclass(frozen=True)
class Update:
    """rows[targets] = (matrix @ rows)[targets]."""

    matrix: Matrix
    targets: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """One row of a plan, composed: call, then `before` and what instruction there is, then `after`.

    `before` writes what an instruction works on: x0, which it limits, or the score of a Langevin step, which is
    scaled once the noise is drawn.
    """

    out: int
    t: float
    slot: int
    before: Update | None
    instruction: Instruction | None
    noisy: bool
    span: tuple[float, float]
    noise_instruction: NoiseInstruction | None
    after: Update


def compose(plan: StepPlan, layout: Layout) -> tuple[Update | None, list[Step]]:
    """Return what fills the scaled input before the first row (if anything), and the steps."""
    live = _live_slots(plan)
    prologue = None
    if layout.scaled:
        first = np.eye(layout.count)
        first[layout.input] = next_scale(plan, -1) * first[layout.state]
        prologue = Update(first, (layout.input,))
    noisy = plan.noisy.tolist()
    return prologue, [_compose_row(plan, layout, row, live[row], noisy[row]) for row in range(plan.rows)]


def _compose_row(plan: StepPlan, layout: Layout, row: int, live: set[int], noisy: bool) -> Step:
    out, slot, kept, index = (int(c[row]) for c in (plan.out, plan.quantity, plan.keep, plan.instruction))
    scaled = int(plan.noise_instruction[row])
    matrix, before = np.eye(layout.count), None
    if out >= 0:
        matrix = _pair(layout, slot, plan.convert[row], layout.slots[out])
        if index >= 0:
            before, matrix = Update(matrix, (layout.slots[slot],)), np.eye(layout.count)
        matrix = _pair(layout, slot, plan.restore[row], layout.slots[slot]) @ matrix
    if kept >= 0:
        keep = np.eye(layout.count)
        keep[layout.slots[kept]] = keep[layout.state]
        matrix = keep @ matrix
    measured = plan.instructions[scaled] if scaled >= 0 else None
    move = np.eye(layout.count)
    move[layout.state, [layout.state, *layout.slots]] = plan.weights[row]
    if layout.noise is not None:
        move[layout.state, layout.noise] = plan.noise[row]
    if layout.scaled:
        move[layout.input] = next_scale(plan, row) * move[layout.state]
    written = {slot, kept} & live
    if isinstance(measured, Langevin):
        before = Update(matrix, tuple(sorted(layout.slots[k] for k in {slot, kept} - {-1})))
        matrix, written = np.eye(layout.count), set()
    targets = {layout.state, layout.input, *(layout.slots[k] for k in written)}
    return Step(
        out,
        float(plan.t[row]),
        slot,
        before,
        cast("Instruction | None", plan.instructions[index] if index >= 0 else None),
        noisy,
        (float(plan.span[row, 0]), float(plan.span[row, 1])),
        cast("NoiseInstruction | None", measured),
        Update(move @ matrix, tuple(sorted(targets))),
    )


def _pair(layout: Layout, slot: int, weights: Matrix, source: int) -> Matrix:
    """Return the matrix that puts weights[0] * state + weights[1] * (row `source`) into a slot."""
    matrix = np.eye(layout.count)
    matrix[layout.slots[slot]] = 0.0
    matrix[layout.slots[slot], layout.state] = weights[0]
    matrix[layout.slots[slot], source] = weights[1]
    return matrix


def next_scale(plan: StepPlan, row: int) -> float:
    """Return by what the state after a row is scaled for the next call; -1 is before the first row."""
    later = np.flatnonzero(plan.out[row + 1 :] >= 0)
    return float(plan.in_scale[row + 1 + later[0]]) if later.size else 1.0


def _live_slots(plan: StepPlan) -> list[set[int]]:
    """Return, for each row, the slots that a later row still reads."""
    live: list[set[int]] = []
    needed: set[int] = set()
    for row in reversed(range(plan.rows)):
        live.append(set(needed))
        needed |= {k for k in range(plan.slots) if plan.weights[row, 1 + k] != 0}
        needed.discard(int(plan.keep[row]))
        if plan.out[row] >= 0:
            needed -= {int(plan.quantity[row]), int(plan.out[row])}
    return live[::-1]
