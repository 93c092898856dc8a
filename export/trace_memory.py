"""Which quantities a traced sampler has to remember after each row, so that slots are few.

After a row, what is to come depends on the past through a space: the future states' weights on what has been seen so
far (as in a Hankel matrix). The state and the slots that stay must span that space, no more. A slot can hold an old
state or one sum p * state + c * output of its call, so for each call the sum is looked for that the future needs.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: quantities that lean on the others more than this are not told apart: the weights would magnify rounding
_LEAN = 1e-6
#: how many quantities more than the future asks for are looked through; each doubles the choices
_EXCESS = 3


@dataclasses.dataclass(frozen=True)
class Moment:
    """A row to be: columns seen before it, of its output (if it calls) and of its noise (if any), and the next state.

    Columns are in the order in which they are seen, so that `seen` counts those that this row and earlier ones know.
    `guesses` are weights of (state, output) that the quantities of some rows are made with, in one order for all.
    """

    call: int | None
    noise: int | None
    seen: int
    after: Floats
    guesses: tuple[tuple[float, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Sum:
    """state * the state before a row + output * the output of its call."""

    row: int
    state: float
    output: float


class Memory:
    """Decides, row by row, which quantities stay."""

    def __init__(self, moments: Sequence[Moment], tolerance: float) -> None:
        self._moments, self._tolerance = moments, tolerance
        self._width = len(moments[0].after)
        first = np.zeros(self._width)
        first[0] = 1.0
        self._before = [first, *(moment.after for moment in moments[:-1])]
        self._needs = self._look_ahead()
        self._spans = [_orthonormal(need, tolerance) for need in self._needs]
        self._found: dict[tuple[int, str], list[Sum]] = {}
        self.ranks = [len(span) for span in self._spans]

    def choose(self, order: str) -> list[tuple[Sum, ...]] | None:
        """Return what stays after each row: as few quantities as cover the future, new ones before old ones.

        None if the sums tried in this order lead far beyond the number that the future asks for.
        """
        kept: list[tuple[Sum, ...]] = []
        for row, moment in enumerate(self._moments):
            old = kept[-1] if kept else ()
            if len(old) > max(self.ranks) + _EXCESS:
                return None
            output = (Sum(row, 0.0, 1.0),) if moment.call is not None else ()
            everything = (*old, Sum(row, 1.0, 0.0), *output)
            choices = self._choices(row, old, order)
            kept.append(next((chosen for chosen in choices if self._covers(row, chosen)), everything))
        return kept

    def accumulated(self) -> list[Moment]:
        """Return moments in which the state, before it moves on, is each sum that the future needs beside it.

        A later row without a call then keeps it: so slots can hold sums over many calls.
        """
        made: list[Moment] = []
        for need, moment in zip(self._needs, self._moments):
            after, seen, call, rest = _unit(moment.after), moment.seen, moment.call, need
            if moment.noise is not None:
                rest, seen = need - np.outer(need[:, moment.noise] / after[moment.noise], after), seen - 1
            else:
                rest = _without(need, after[None])
            for v in _orthonormal(rest, self._tolerance) if len(need) > 1 else ():
                made.append(Moment(call, None, seen, v, moment.guesses))
                call = None
            made.append(dataclasses.replace(moment, call=call))
        return made

    def plainer(self, kept: list[tuple[Sum, ...]]) -> list[tuple[Sum, ...]]:
        """Buffer the raw output wherever it serves as well as the sum that was found."""
        for sums in list(kept):
            for old in sums:
                plain = Sum(old.row, 0.0, 1.0)
                if not old.state or self._moments[old.row].call is None or plain in sums:
                    continue
                trial = [tuple(plain if s == old else s for s in row) for row in kept]
                if all(old not in row or self._covers(k, trial[k]) for k, row in enumerate(kept)):
                    kept = trial
        return kept

    def _look_ahead(self) -> list[Floats]:
        """Return, for each row, rows that weigh as all later states do on what is known after it."""
        needs: list[Floats] = []
        need = np.empty((0, self._width))
        for moment in reversed(self._moments):
            known = np.vstack([_unit(moment.after), need])
            known[:, moment.seen :] = 0.0
            # The singular values stay in: they say how much the future cares.
            _, sizes, directions = np.linalg.svd(known, full_matrices=False)
            large = sizes > 1e-2 * self._tolerance
            need = sizes[large, None] * directions[large]
            needs.append(need)
        return needs[::-1]

    def _choices(self, row: int, old: tuple[Sum, ...], order: str) -> Iterator[tuple[Sum, ...]]:
        called = self._moments[row].call is not None
        state, output = Sum(row, 1.0, 0.0), Sum(row, 0.0, 1.0)
        for size in range(len(old) + 3):
            for new in (1, 0, 2) if called else (0, 1):
                if not 0 <= size - new <= len(old):
                    continue
                for stay in itertools.combinations(old[::-1], size - new):
                    base = stay[::-1]
                    if new == 0:
                        yield base
                    elif new == 2:
                        yield (*base, state, output)
                    else:
                        yield from ((*base, s) for s in (self._sums(row, base, order) if called else [state]))

    def _covers(self, row: int, chosen: tuple[Sum, ...]) -> bool:
        return bool(np.linalg.norm(self._left(row, chosen), axis=1).max(initial=0.0) <= self._tolerance)

    def _left(self, row: int, chosen: tuple[Sum, ...]) -> Floats:
        """Return what of the future the next state and the chosen quantities do not span."""
        return _without(self._needs[row], self._basis(row, chosen))

    def _basis(self, row: int, chosen: tuple[Sum, ...]) -> Floats:
        vectors = [self._moments[row].after, *(self._vector(s) for s in chosen)]
        return _orthonormal(np.stack([_unit(v) for v in vectors]), _LEAN)

    def _vector(self, found: Sum) -> Floats:
        vector = found.state * self._before[found.row]
        call = self._moments[found.row].call
        if call is not None:
            vector[call] += found.output
        return vector

    def _plane(self, row: int) -> Floats:
        return np.stack([_unit(self._before[row]), self._vector(Sum(row, 0.0, 1.0))])

    def _sums(self, row: int, base: tuple[Sum, ...], order: str) -> Iterator[Sum]:
        """Yield sums of state and output that could cover what the base leaves."""
        _, sizes, directions = np.linalg.svd(self._left(row, base), full_matrices=False)
        if (sizes > self._tolerance).sum() > 1:
            return
        if order == "plain":
            yield Sum(row, 0.0, 1.0)
        elif order.isdigit():
            state, output = self._moments[row].guesses[int(order)]
            yield _sum(row, state, output)
        yield from self._wanted(row, order)
        yield Sum(row, 0.0, 1.0)
        if sizes.size:
            plane = _without(self._plane(row), self._basis(row, base))
            yield self._fitted(row, np.linalg.lstsq(plane.T, directions[0], rcond=_LEAN)[0])
        yield Sum(row, 1.0, 0.0)

    def _wanted(self, row: int, order: str) -> list[Sum]:
        """Return the sum that all later rows need, as many as there are, then those needed by fewer of them.

        In the order "kept", they count only while the row is among the newest that the memory must hold.
        """
        if (row, order) in self._found:
            return self._found[row, order]
        plane, common, found = self._plane(row), np.eye(2), []
        for later in range(row, len(self._moments)):
            if order == "kept" and row <= later - (self.ranks[later] - 1):
                break
            off = _without(common @ plane, self._spans[later])
            left, sizes, _ = np.linalg.svd(off, full_matrices=False)
            shared = [left[:, k] @ common for k in range(len(common)) if sizes[k] <= _LEAN]
            if not shared:
                break
            common = np.stack(shared)
            if len(common) == 1:
                found.append(self._fitted(row, common[0]))
        self._found[row, order] = found[::-1]
        return self._found[row, order]

    def _fitted(self, row: int, pair: Floats) -> Sum:
        """Return the sum for weights of (unit state, output); what is small beside the other is rounding."""
        state, output = (0.0 if abs(v) <= 1e-9 * np.abs(pair).max() else float(v) for v in pair)
        return _sum(row, state / (float(np.linalg.norm(self._before[row])) or 1.0), output)


def _sum(row: int, state: float, output: float) -> Sum:
    """Return a sum whose larger weight is 1."""
    largest = max(state, output, key=abs)
    return Sum(row, state / largest, output / largest)


def _unit(vector: Floats) -> Floats:
    size = np.linalg.norm(vector)
    return vector / size if size else vector


def _orthonormal(rows: Floats, tolerance: float) -> Floats:
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(directions[sizes > tolerance])


def _without(rows: Floats, basis: Floats) -> Floats:
    """Return the rows less their part in the span of an orthonormal basis."""
    return np.asarray(rows - (rows @ basis.T) @ basis)
