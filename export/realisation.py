"""From a sampler's dense weights to rows of a plan, with as few slots as possible."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dpmrt.export.trace_memory import Memory, Moment, Sum
from dpmrt.solvers_np.plans.slots import allot

Floats = NDArray[np.float64]

#: which sums are tried first: needed while among the newest, plain outputs, needed for longest; then each guess
_ORDERS = ("kept", "plain", "longest")
#: how many slots more than the future asks for are taken before rows without a call are added to spare them
_SPARE = 2


@dataclasses.dataclass(frozen=True)
class SolvedRow:
    """What a row buffers, and the weights of the next state."""

    made: tuple[Sum, ...]
    state: float
    history: dict[Sum, float]
    noise: float


@dataclasses.dataclass(frozen=True)
class Realisation:
    """Rows, the moments that they realise, and the largest relative distance of their states from the recorded."""

    moments: Sequence[Moment]
    rows: list[SolvedRow]
    drift: float

    @property
    def slots(self) -> int:
        """Return the number of slots that the rows need."""
        return slots_of(self.rows)[1]


def realise(moments: Sequence[Moment], tolerances: Sequence[float], limit: float) -> Realisation:
    """Return the rows with the fewest slots whose states drift from the recorded ones by at most `limit`.

    Of the `tolerances`, each a part of a state that may be left unspanned, the first that serves is taken. Where
    none does, the rows of the smallest drift are returned.
    """
    best, ranks = _best(moments, tolerances, limit)
    if best.drift <= limit and best.slots <= max(ranks) + _SPARE:
        return best
    for tolerance in tolerances:
        other, _ = _best(Memory(moments, tolerance).accumulated(), [tolerance], limit)
        best = _better(best, other, limit)
        if other.drift <= limit:
            break
    return best


def _best(moments: Sequence[Moment], tolerances: Sequence[float], limit: float) -> tuple[Realisation, list[int]]:
    best, ranks = Realisation(moments, [], np.inf), [0]
    orders = (*_ORDERS, *(str(k) for k in range(len(moments[0].guesses))))
    for tolerance in tolerances:
        memory = Memory(moments, tolerance)
        if memory.ranks == ranks and best.drift <= limit:
            continue
        ranks = memory.ranks
        for order in orders:
            kept = memory.choose(order)
            if kept is not None:
                best = _better(best, Realisation(moments, *_solve(moments, memory.plainer(kept))), limit)
            if best.drift <= limit and best.slots <= max(ranks):
                return best, ranks
    return best, ranks


def _better(one: Realisation, other: Realisation, limit: float) -> Realisation:
    return min(one, other, key=lambda found: (max(found.drift, limit), found.slots))


def slots_of(rows: Sequence[SolvedRow]) -> tuple[dict[Sum, int], int]:
    """Give each quantity the lowest slot that is free until the last row that reads it; also count slots."""
    until = {s: index for index, row in enumerate(rows) for s in row.history}
    return allot(([s for s in row.made if s.output or s in until] for row in rows), until)


def _solve(moments: Sequence[Moment], kept: list[tuple[Sum, ...]]) -> tuple[list[SolvedRow], float]:
    """Find the weights, each row from what the rows before it really make."""
    state = np.zeros(len(moments[0].after))
    state[0] = 1.0
    vectors: dict[Sum, Floats] = {}
    rows, drift = [], 0.0
    for index, moment in enumerate(moments):
        made = [s for s in kept[index] if s.row == index]
        if moment.call is not None and not any(s.output for s in made):
            made.append(Sum(index, 0.0, 1.0))
        for s in made:
            vectors[s] = s.state * state
            if moment.call is not None:
                vectors[s][moment.call] += s.output
        old = kept[index - 1] if index else ()
        terms = [*old, *(s for s in made if s.output)]
        target, noise = moment.after.copy(), 0.0
        if moment.noise is not None:
            noise, target[moment.noise] = float(target[moment.noise]), 0.0
        weights = _weights(np.stack([state, *(vectors[s] for s in terms)]), target)
        history = {s: float(w) for s, w in zip(terms, weights[1:]) if w != 0}
        state = weights[0] * state + sum((w * vectors[s] for s, w in history.items()), np.zeros_like(state))
        if moment.noise is not None:
            state[moment.noise] += noise
        size = float(np.linalg.norm(moment.after)) or 1.0
        drift = max(drift, float(np.linalg.norm(state - moment.after)) / size)
        rows.append(SolvedRow(tuple(made), float(weights[0]), history, noise))
    return rows, drift


def _weights(vectors: Floats, target: Floats) -> Floats:
    """Return weights of the vectors that make the target; those that only mend rounding are zero."""
    sizes = np.linalg.norm(vectors, axis=1)
    weights, used = np.zeros(len(vectors)), sizes > 0
    for _ in range(len(vectors)):
        weights[:] = 0.0
        scaled = vectors[used] / sizes[used, None]
        weights[used] = np.linalg.lstsq(scaled.T, target, rcond=1e-14)[0] / sizes[used]
        small = used & (np.abs(weights) * sizes <= 1e-13 * np.linalg.norm(target))
        if not small.any():
            break
        used &= ~small
    return weights
