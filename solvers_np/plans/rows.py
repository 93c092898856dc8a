"""RowList: a plan written row by row, with slots given by number. Solvers use PlanWriter, which gives them out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.solvers_np.plans.instructions import Instruction, NoiseInstruction
from dpmrt.solvers_np.plans.plan import StepPlan
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
        self._instructions: list[Instruction | NoiseInstruction] = []

    def call(
        self,
        t: float,
        slot: int,
        *,
        level: Pair,
        state: float,
        history: Mapping[int, float],
        noise: float = 0.0,
        span: Pair = (0.0, 0.0),
        noise_instruction: NoiseInstruction | None = None,
        convert: Pair = _SAME,
        out: int | None = None,
        instruction: Instruction | None = None,
        restore: Pair = _SAME,
        keep: int = -1,
        in_scale: float = 1.0,
    ) -> None:
        """Add a row that calls the network at time t and buffers its converted output in `slot`.

        `level` is (alpha, sigma) of the state at the call; `out` is where the raw output goes if not to `slot`.
        `span` is the noise's share of the variance before and after the row, if the row adds noise.
        """
        self._add(
            t=t,
            alpha=level[0],
            sigma=level[1],
            in_scale=in_scale,
            out=slot if out is None else out,
            quantity=slot,
            convert=convert,
            instruction=self._index(instruction),
            restore=restore,
            keep=keep,
            weights=self._weights(state, history),
            noise=noise,
            span=span,
            noise_instruction=self._index(noise_instruction),
        )

    def move(
        self,
        *,
        state: float,
        history: Mapping[int, float],
        noise: float = 0.0,
        span: Pair = (0.0, 0.0),
        noise_instruction: NoiseInstruction | None = None,
        keep: int = -1,
    ) -> None:
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
            span=span,
            noise_instruction=self._index(noise_instruction),
        )

    def _index(self, instruction: Instruction | NoiseInstruction | None) -> int:
        if instruction is None:
            return -1
        if instruction not in self._instructions:
            self._instructions.append(instruction)
        return self._instructions.index(instruction)

    def _weights(self, state: float, history: Mapping[int, float]) -> list[float]:
        return [state, *(float(history.get(k, 0.0)) for k in range(self._slots))]

    def _add(self, **row: Any) -> None:
        for name, value in row.items():
            self._columns.setdefault(name, []).append(value)

    def plan(
        self,
        *,
        init_scale: float = 1.0,
        start: Pair | None = None,
        end: Pair = (1.0, 0.0),
        parts: int = 1,
        **meta: Any,
    ) -> StepPlan:
        """Return the rows as a validated plan; `start` is, unless given, the level of the first call."""
        called = [k for k, out in enumerate(self._columns.get("out", [])) if out >= 0]
        if start is None:
            start = (self._columns["alpha"][called[0]], self._columns["sigma"][called[0]]) if called else (1.0, 0.0)
        return StepPlan(
            **self._columns,  # type: ignore[arg-type]
            instructions=tuple(self._instructions),
            init_scale=init_scale,
            start=start,
            end=end,
            parts=parts,
            meta=meta,
        )
