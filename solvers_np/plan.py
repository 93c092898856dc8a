"""StepPlan: a sampler as a table.

A plan works on one *state* (what becomes the sample) and a few *slots* (the ring of buffered quantities). Each
row does, in this order, what its columns say:

    call      raw = network(in_scale * state, t), written into slot `out`          (no call when out is -1)
    convert   slot[quantity] = convert[0] * state + convert[1] * slot[out]
    instruct  a named non-linear operation on slot[quantity], and, after it,
              slot[quantity] = restore[0] * state + restore[1] * slot[quantity]
    keep      slot[keep] = state                                                   (nothing when keep is -1)
    next      state = weights[0] * state + sum over k of weights[1 + k] * slot[k] + noise * (fresh noise)

`next` reads the slots as they are after `keep`, and the state as it was before the row. The columns `alpha` and
`sigma` say how much signal and noise the state holds when the network is called; the executor does not read them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import PlanError
from dpmrt.solvers_np import stepfile

#: name, dtype and trailing axes of every column; "slots" stands for 1 + the number of slots
COLUMNS: tuple[tuple[str, str, tuple[int | str, ...]], ...] = (
    ("t", "<f8", ()),
    ("alpha", "<f8", ()),
    ("sigma", "<f8", ()),
    ("in_scale", "<f8", ()),
    ("out", "<i4", ()),
    ("quantity", "<i4", ()),
    ("convert", "<f8", (2,)),
    ("instruction", "<i4", ()),
    ("restore", "<f8", (2,)),
    ("keep", "<i4", ()),
    ("weights", "<f8", ("slots",)),
    ("noise", "<f8", ()),
)


@dataclasses.dataclass(frozen=True)
class Clip:
    """Limit the quantity, a prediction of x0, to [-limit, limit]."""

    limit: float


@dataclasses.dataclass(frozen=True)
class DynamicThreshold:
    """Limit each sample of x0 to its own percentile s, at least 1 and at most `limit`, and divide by s.

    Saharia et al. 2022 (Imagen), section 2.3.
    """

    ratio: float
    limit: float


Instruction = Clip | DynamicThreshold
INSTRUCTIONS: Mapping[str, type[Clip] | type[DynamicThreshold]] = {
    "clip": Clip,
    "dynamic_threshold": DynamicThreshold,
}


@dataclasses.dataclass(frozen=True, eq=False)
class StepPlan:
    """A sampler for one schedule, grid and solver. Immutable; `compile_plan` makes it, `run_plan` runs it.

    >>> from dpmrt.solvers_np import compile_plan, make_schedule
    >>> plan = compile_plan("dpmsolver++", make_schedule("linear"), 4, grid="logsnr")
    >>> plan.calls, plan.slots, plan.stochastic
    (4, 2, False)
    """

    t: NDArray[np.float64]
    alpha: NDArray[np.float64]
    sigma: NDArray[np.float64]
    in_scale: NDArray[np.float64]
    out: NDArray[np.int32]
    quantity: NDArray[np.int32]
    convert: NDArray[np.float64]
    instruction: NDArray[np.int32]
    restore: NDArray[np.float64]
    keep: NDArray[np.int32]
    weights: NDArray[np.float64]
    noise: NDArray[np.float64]
    instructions: tuple[Instruction, ...] = ()
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = len(np.atleast_1d(self.t))
        slots = np.shape(self.weights)[-1] if np.ndim(self.weights) == 2 else 0
        if rows == 0 or slots < 1:
            raise PlanError("a plan needs at least one row and a weight for the state", got=f"{rows} rows")
        for name, dtype, tail in COLUMNS:
            array = np.array(getattr(self, name), dtype=dtype)
            shape = (rows, *(slots if axis == "slots" else axis for axis in tail))
            if array.shape != shape:
                raise PlanError(f"column {name!r} of the plan has the wrong shape", got=array.shape, expected=shape)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        self._validate()

    def _validate(self) -> None:
        calls = self.out >= 0
        for name, _, _ in COLUMNS:
            column = getattr(self, name)
            bad = ~np.isfinite(column).reshape(len(self.t), -1).all(axis=1)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise PlanError(f"column {name!r} is not finite", got=f"{column[row]} in row {row}")
        for name, low in (("out", -1), ("quantity", 0), ("keep", -1), ("instruction", -1)):
            column = getattr(self, name)
            high = (len(self.instructions) if name == "instruction" else self.slots) - 1
            used = calls if name == "quantity" else np.ones_like(calls)
            wrong = used & ((column < low) | (column > high))
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise PlanError(
                    f"column {name!r} is out of range", got=f"{column[row]} in row {row}", expected=f"{low} to {high}"
                )
        self._check_reads(calls)

    def _check_reads(self, calls: NDArray[np.bool_]) -> None:
        written: set[int] = set()
        for row in range(self.rows):
            if calls[row]:
                written |= {int(self.out[row]), int(self.quantity[row])}
            if self.keep[row] >= 0:
                written.add(int(self.keep[row]))
            unread = [k for k in range(self.slots) if self.weights[row, 1 + k] != 0 and k not in written]
            if unread:
                raise PlanError("a row reads a slot before anything wrote it", got=f"slot {unread[0]} in row {row}")

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.t)

    @property
    def slots(self) -> int:
        """Return the number of buffers that the plan needs beside the state."""
        return int(self.weights.shape[1]) - 1

    @property
    def calls(self) -> int:
        """Return the number of network calls."""
        return int((self.out >= 0).sum())

    @property
    def timesteps(self) -> NDArray[np.float64]:
        """Return the time of every network call, in order."""
        return self.t[self.out >= 0]

    @property
    def stochastic(self) -> bool:
        """Return whether the plan asks for fresh noise."""
        return bool((self.noise != 0).any())

    @property
    def draws(self) -> int:
        """Return how many times the plan asks for fresh noise."""
        return int((self.noise != 0).sum())

    def describe(self) -> list[dict[str, Any]]:
        """Return one dictionary per row, for tables and debugging."""
        table = []
        for row in range(self.rows):
            index = int(self.instruction[row])
            called = self.out[row] >= 0
            table.append(
                {
                    "row": row,
                    "t": float(self.t[row]) if called else None,
                    "alpha": float(self.alpha[row]) if called else None,
                    "sigma": float(self.sigma[row]) if called else None,
                    "in_scale": float(self.in_scale[row]),
                    "slot": int(self.quantity[row]) if called else None,
                    "convert": [float(v) for v in self.convert[row]],
                    "instruction": self.instructions[index] if index >= 0 else None,
                    "state": float(self.weights[row, 0]),
                    "history": {k: float(w) for k, w in enumerate(self.weights[row, 1:]) if w != 0},
                    "noise": float(self.noise[row]),
                }
            )
        return table

    def to_bytes(self) -> bytes:
        """Return the plan as the bytes of a step file; equal plans give equal bytes."""
        names = {kind: name for name, kind in INSTRUCTIONS.items()}
        header = {
            "instructions": [{"name": names[type(i)], **dataclasses.asdict(i)} for i in self.instructions],
            "meta": dict(self.meta),
        }
        return stepfile.pack(header, {name: getattr(self, name) for name, _, _ in COLUMNS})

    @staticmethod
    def from_bytes(data: bytes, *, source: str = "the step file") -> StepPlan:
        """Return the plan that `to_bytes` packed."""
        header, arrays = stepfile.unpack(data, {name: dtype for name, dtype, _ in COLUMNS}, source=source)
        meta = header.get("meta", {})
        if not isinstance(meta, dict):
            raise PlanError(
                f"{source} has a description that is no table", got=type(meta).__name__, expected="an object"
            )
        try:
            return StepPlan(**arrays, instructions=_instructions(header, source), meta=meta)
        except PlanError as error:
            if source in error.what:
                raise
            raise PlanError(f"{source}: {error.what}", got=error.got, expected=error.expected) from None

    def digest(self) -> str:
        """Return the SHA-256 of what the plan does; descriptions in `meta` do not count."""
        return hashlib.sha256(dataclasses.replace(self, meta={}).to_bytes()).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write the plan as a step file."""
        return stepfile.write(Path(path), self.to_bytes())

    @staticmethod
    def load(path: str | Path) -> StepPlan:
        """Read a plan that `save` wrote. Plain numbers: nothing is unpickled."""
        return StepPlan.from_bytes(stepfile.read(Path(path)), source=str(path))


def _instructions(header: Mapping[str, Any], source: str) -> tuple[Instruction, ...]:
    made: list[Instruction] = []
    listed = header.get("instructions", [])
    for entry in listed if isinstance(listed, list) else [listed]:
        fields = dict(entry) if isinstance(entry, dict) else {}
        kind = INSTRUCTIONS.get(str(fields.pop("name", "")))
        expected = {field.name for field in dataclasses.fields(kind)} if kind else set()
        if (
            kind is None
            or set(fields) != expected
            or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in fields.values())
        ):
            raise PlanError(
                f"{source} holds an instruction that this version does not know",
                got=json.dumps(entry),
                expected="one of " + ", ".join(INSTRUCTIONS),
                fix="update dpmrt, or compile the plan again",
            )
        made.append(kind(**fields))
    return tuple(made)
