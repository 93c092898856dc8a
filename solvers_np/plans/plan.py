"""StepPlan: a sampler as a table.

A plan works on one *state* (what becomes the sample) and a few *slots* (the ring of buffered quantities). Each
row does, in this order, what its columns say:

    call      raw = network(in_scale * state, t), written into slot `out`          (no call when out is -1)
              (of an output with `parts` times the state's channels, the first part)
    convert   slot[quantity] = convert[0] * state + convert[1] * slot[out]
    instruct  a named non-linear operation on slot[quantity], and, after it,
              slot[quantity] = restore[0] * state + restore[1] * slot[quantity]
    keep      slot[keep] = state                                                   (nothing when keep is -1)
    draw      z = fresh noise, if noise is not 0 (or is drawn to be discarded); then noise_instruction, if any, on z
              and the output's second part, or (Langevin) on z and slot[quantity]
    next      state = weights[0] * state + sum over k of weights[1 + k] * slot[k] + noise * z

`next` reads the slots as they are after `keep`, and the state as it was before the row. The columns `alpha` and
`sigma` say how much signal and noise the state holds when the network is called; the executor does not read them.
`span` goes to the noise source: the noise's share of the variance where the drawn noise begins and ends to act.

Sampling from nothing starts at `init_scale` times unit noise; from data x0, at start[0] * x0 + start[1] * noise.
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
from dpmrt.solvers_np.plans import stepfile
from dpmrt.solvers_np.plans.instructions import (
    INSTRUCTIONS,
    Discard,
    Instruction,
    Langevin,
    LearnedRange,
    LearnedVariance,
    NoiseInstruction,
    check_bounds,
    read_instructions,
)

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
    ("noise_instruction", "<i4", ()),
    ("span", "<f8", (2,)),
)


#: what the header of a step file holds beside the instructions, and how many numbers each has
_HEADER = {"init_scale": 1, "start": 2, "end": 2, "parts": 1}


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
    noise_instruction: NDArray[np.int32]
    span: NDArray[np.float64]
    instructions: tuple[Instruction | NoiseInstruction, ...] = ()
    init_scale: float = 1.0
    start: tuple[float, float] = (1.0, 0.0)
    end: tuple[float, float] = (1.0, 0.0)
    parts: int = 1
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
        for name in ("start", "end"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        object.__setattr__(self, "init_scale", float(self.init_scale))
        self._validate()

    def _validate(self) -> None:
        calls = self.out >= 0
        for name, _, _ in COLUMNS:
            column = getattr(self, name)
            bad = ~np.isfinite(column).reshape(len(self.t), -1).all(axis=1)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise PlanError(f"column {name!r} is not finite", got=f"{column[row]} in row {row}")
        self._validate_header()
        for name, low in (
            ("out", -1),
            ("quantity", 0),
            ("keep", -1),
            ("instruction", -1),
            ("noise_instruction", -1),
        ):
            column = getattr(self, name)
            high = (len(self.instructions) if "instruction" in name else self.slots) - 1
            used = calls if name == "quantity" else np.ones_like(calls)
            wrong = used & ((column < low) | (column > high))
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise PlanError(
                    f"column {name!r} is out of range", got=f"{column[row]} in row {row}", expected=f"{low} to {high}"
                )
        self._check_instructions()
        self._check_reads(calls)

    def _validate_header(self) -> None:
        numbers = (self.init_scale, *self.start, *self.end)
        if len(numbers) != 5 or not all(math.isfinite(v) for v in numbers):
            raise PlanError("init_scale, start and end of the plan must be 1, 2 and 2 finite numbers", got=numbers)
        if self.parts not in (1, 2):
            raise PlanError("a network's output has one part, or a second for the variance", got=self.parts)

    def _check_instructions(self) -> None:
        for name, kinds in (("instruction", Instruction), ("noise_instruction", NoiseInstruction)):
            for index in set(getattr(self, name).tolist()) - {-1}:
                if not isinstance(self.instructions[index], kinds):
                    raise PlanError(f"column {name!r} names an instruction for another use", got=f"number {index}")
        for row, index in enumerate(self.noise_instruction.tolist()):
            out, other, noise = self.out[row], self.instruction[row], self.noise[row]
            fit = out >= 0 and other < 0 and noise != 0
            if index >= 0 and isinstance(self.instructions[index], Langevin) and not fit:
                raise PlanError(
                    "a Langevin step is in a row that it cannot work on",
                    got=f"row {row}: out {out}, instruction {other}, noise {noise:g}",
                    expected="a call, no other instruction on its quantity, and noise",
                )
        check_bounds(self.instructions)
        learned = [isinstance(i, (LearnedRange, LearnedVariance)) for i in self.instructions]
        if self.parts == 1 and any(learned):
            raise PlanError("a learned variance needs an output of two parts", got="parts = 1", expected=2)

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
    def noisy(self) -> NDArray[np.bool_]:
        """Return for each row whether it draws fresh noise."""
        unused = [k for k, instruction in enumerate(self.instructions) if isinstance(instruction, Discard)]
        return np.asarray(self.stochastic & ((self.noise != 0) | np.isin(self.noise_instruction, unused)))

    @property
    def draws(self) -> int:
        """Return how many times the plan asks for fresh noise."""
        return int(self.noisy.sum())

    def describe(self) -> list[dict[str, Any]]:
        """Return one dictionary per row, for tables and debugging."""
        table = []
        for row in range(self.rows):
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
                    "instruction": self._instruction(self.instruction[row]),
                    "state": float(self.weights[row, 0]),
                    "history": {k: float(w) for k, w in enumerate(self.weights[row, 1:]) if w != 0},
                    "noise": float(self.noise[row]),
                    "noise_instruction": self._instruction(self.noise_instruction[row]),
                    "span": [float(v) for v in self.span[row]],
                }
            )
        return table

    def _instruction(self, index: int) -> Instruction | NoiseInstruction | None:
        return self.instructions[index] if index >= 0 else None

    def to_bytes(self) -> bytes:
        """Return the plan as the bytes of a step file; equal plans give equal bytes."""
        names = {kind: name for name, kind in INSTRUCTIONS.items()}
        header = {
            "instructions": [{"name": names[type(i)], **dataclasses.asdict(i)} for i in self.instructions],
            **{name: getattr(self, name) for name in _HEADER},
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
            columns: dict[str, Any] = {**arrays, **_header(header, source)}
            return StepPlan(**columns, instructions=read_instructions(header, source), meta=meta)
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


def _header(header: Mapping[str, Any], source: str) -> dict[str, Any]:
    found = {name: header.get(name) for name in _HEADER}
    for name, value in found.items():
        listed = value if isinstance(value, list) else [value]
        number = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in listed)
        if not number or len(listed) != _HEADER[name] or isinstance(value, list) != (_HEADER[name] > 1):
            raise PlanError(f"{source} has no {name} in its header", got=json.dumps(value), expected="plain numbers")
    return found
