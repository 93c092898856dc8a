"""RowList: how a solver writes its plan, a row at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.plan import Instruction, StepPlan
from dpmrt.solvers_np.prediction import Pair

_SAME: Pair = (0.0, 1.0)


class RowList:
    """Collects rows for a plan with a given number of slots.

    >>> rows = RowList(slots=1)
    >>> rows.call(t=10.0, slot=0, level=(0.9, 0.4), state=0.5, history={0: 0.5})
    >>> rows.plan().calls
    1
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._columns: dict[str, list[Any]] = {}
        self._instructions: list[Instruction] = []

    def call(
        self,
        t: float,
        slot: int,
        *,
        level: Pair,
        state: float,
        history: Mapping[int, float],
        noise: float = 0.0,
        convert: Pair = _SAME,
        out: int | None = None,
        instruction: Instruction | None = None,
        restore: Pair = _SAME,
        keep: int = -1,
        in_scale: float = 1.0,
    ) -> None:
        """Add a row that calls the network at time t and buffers its converted output in `slot`.

        `level` is (alpha, sigma) of the state at the call; `out` is where the raw output goes if not to `slot`.
        """
        index = -1
        if instruction is not None:
            if instruction not in self._instructions:
                self._instructions.append(instruction)
            index = self._instructions.index(instruction)
        self._add(
            t=t,
            alpha=level[0],
            sigma=level[1],
            in_scale=in_scale,
            out=slot if out is None else out,
            quantity=slot,
            convert=convert,
            instruction=index,
            restore=restore,
            keep=keep,
            weights=self._weights(state, history),
            noise=noise,
        )

    def move(self, *, state: float, history: Mapping[int, float], noise: float = 0.0, keep: int = -1) -> None:
        """Add a row without a network call."""
        self._add(
            t=0.0,
            alpha=0.0,
            sigma=0.0,
            in_scale=1.0,
            out=-1,
            quantity=0,
            convert=_SAME,
            instruction=-1,
            restore=_SAME,
            keep=keep,
            weights=self._weights(state, history),
            noise=noise,
        )

    def _weights(self, state: float, history: Mapping[int, float]) -> list[float]:
        return [state, *(float(history.get(k, 0.0)) for k in range(self._slots))]

    def _add(self, **row: Any) -> None:
        for name, value in row.items():
            self._columns.setdefault(name, []).append(value)

    def plan(self, **meta: Any) -> StepPlan:
        """Return the rows as a validated plan."""
        return StepPlan(**self._columns, instructions=tuple(self._instructions), meta=meta)  # type: ignore[arg-type]
