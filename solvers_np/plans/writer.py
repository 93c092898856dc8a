"""PlanWriter: a solver written as sums of states and network outputs becomes rows of weights.

The writer keeps track of what is what. A sum may name any earlier state: it is found again from the state that
followed it, since a move without noise can be undone, or else it is kept in a slot. Slots are given out by how long
each quantity is needed, so that a plan has as few as its solver really uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dpmrt.errors import PlanError
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.instructions import Instruction, NoiseInstruction
from dpmrt.solvers_np.plans.mix import Mix, Symbol
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.plans.rows import RowList
from dpmrt.solvers_np.plans.slots import allot
from dpmrt.solvers_np.prediction import Pair

_SAME: Pair = (0.0, 1.0)
#: undoing a move that shrinks the state by more than this would magnify its rounding
_SMALLEST_UNDONE = 1e-2


@dataclasses.dataclass
class _Call:
    level: Level
    convert: Pair
    instruction: Instruction | None
    restore: Pair


@dataclasses.dataclass
class _Row:
    call: _Call | None
    to: Mix
    noise: float
    span: tuple[float, float]
    noise_instruction: NoiseInstruction | None


class PlanWriter:
    """Collects the rows of a plan over a grid. `x` is the state; `call` asks the network; `move` ends a row.

    Heun's method for dx/dt = -x, whose "network" answers -x:

    >>> from dpmrt.solvers_np import Level
    >>> rows, h = PlanWriter(start=Level(0.0, 1.0, 0.0)), 0.1
    >>> x = rows.x
    >>> d = rows.call(Level(0.0, 1.0, 0.0))
    >>> rows.move(x + h * d)
    >>> d2 = rows.call(Level(h, 1.0, 0.0))
    >>> rows.move(x + h / 2 * (d + d2))
    >>> rows.plan().slots
    2
    """

    def __init__(self, grid: Grid | None = None, *, start: Level | None = None) -> None:
        self._grid = grid
        self._start = next(iter(grid.start)) if grid is not None and start is None else start
        self._rows: list[_Row] = []
        self._call: _Call | None = None

    @property
    def x(self) -> Mix:
        """Return the state as it is now."""
        return Mix.of(Symbol("state", len(self._rows)))

    @property
    def raw(self) -> Mix:
        """Return the raw output of the call just made, beside what it was converted to."""
        return Mix.of(Symbol("raw", len(self._rows)))

    def call(
        self,
        level: Level,
        convert: Pair = _SAME,
        *,
        instruction: Instruction | None = None,
        restore: Pair = _SAME,
    ) -> Mix:
        """Ask the network at the state's level; return the quantity that `convert` makes of (state, raw output)."""
        if self._call is not None:
            raise PlanError("two calls without a move between them", expected="call, move, call, move")
        self._call = _Call(level, convert, instruction, restore)
        return Mix.of(Symbol("quantity", len(self._rows)))

    def move(
        self,
        to: Mix,
        *,
        noise: float = 0.0,
        over: tuple[Level, Level] | Pair | None = None,
        noise_instruction: NoiseInstruction | None = None,
    ) -> None:
        """End the row: the state becomes `to`, plus `noise` times fresh noise that acts `over` two levels.

        The levels may be given by their shares of noise in the variance.
        """
        if noise and over is None:
            raise PlanError("a row adds noise without saying between which levels", got=f"row {len(self._rows)}")
        first, last = over if noise and over is not None else (0.0, 0.0)
        span = tuple(float(e.share if isinstance(e, Level) else e) for e in (first, last))
        self._rows.append(_Row(self._call, self._resolved(to), float(noise), (span[0], span[1]), noise_instruction))
        self._call = None

    def _resolved(self, mix: Mix) -> Mix:
        """Write earlier states as what the present one is made of, where their moves can be undone."""
        now = len(self._rows)
        for index in sorted({s.row for s in mix.weights if s.kind == "state" and s.row < now}):
            symbol, weight = Symbol("state", index), mix[Symbol("state", index)]
            if not weight:
                continue
            steps = self._rows[index:now]
            if any(
                row.noise or abs(row.to[Symbol("state", i)]) < _SMALLEST_UNDONE for i, row in enumerate(steps, index)
            ):
                continue  # it will be kept
            found = Mix.of(symbol)
            for i, row in enumerate(steps, index):
                before = Symbol("state", i)
                undone = (Mix.of(Symbol("state", i + 1)) - row.to.without(before)) / row.to[before]
                found = found.without(before) + found[before] * undone
            mix = mix.without(symbol) + weight * found
        return mix

    def plan(self, *, end: Level | None = None, parts: int = 1, **meta: Any) -> StepPlan:
        """Return the rows as a validated plan of a network whose output has `parts` times the state's channels."""
        slots, count = self._slots()
        rows = RowList(max(count, 1))
        for index, row in enumerate(self._rows):
            state = Symbol("state", index)
            history = {slots[s]: w for s, w in row.to.weights.items() if s != state}
            last = {"state": row.to[state], "history": history, "noise": row.noise, "span": row.span}
            last |= {"noise_instruction": row.noise_instruction, "keep": slots.get(state, -1)}
            self._add(rows, row.call, index, slots, last)
        grid = self._grid
        if grid is not None:
            stop = end or grid.last
            meta = {"init_scale": grid.init_scale, "end": (stop.alpha, stop.sigma), **meta}
        elif end is not None:
            meta = {"end": (end.alpha, end.sigma), **meta}
        if self._start is not None:
            meta = {"start": (self._start.alpha, self._start.sigma), **meta}
        return rows.plan(parts=parts, **meta)

    def _add(
        self, rows: RowList, call: _Call | None, index: int, slots: Mapping[Symbol, int], last: dict[str, Any]
    ) -> None:
        if call is None:
            rows.move(**last)
            return
        slot = slots[Symbol("quantity", index)]
        rows.call(
            call.level.t,
            slot,
            level=(call.level.alpha, call.level.sigma),
            in_scale=call.level.in_scale,
            convert=call.convert,
            instruction=call.instruction,
            restore=call.restore,
            out=slots.get(Symbol("raw", index), slot),
            **last,
        )

    def _slots(self) -> tuple[dict[Symbol, int], int]:
        """Give each quantity the lowest slot that is free from its row to the last row that reads it."""
        until: dict[Symbol, int] = {}
        for index, row in enumerate(self._rows):
            for symbol in row.to.weights:
                if symbol != Symbol("state", index):
                    until[symbol] = index
        made = []
        for index, row in enumerate(self._rows):
            symbols = [Symbol(kind, index) for kind in ("raw", "quantity", "state")]
            made.append([s for s in symbols if s in until or (s.kind == "quantity" and row.call is not None)])
        return allot(made, until)
