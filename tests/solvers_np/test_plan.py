"""StepPlan: what it refuses, and the step file to the byte."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmrt.errors import OutputError, PlanError
from dpmrt.solvers_np import Clip, DynamicThreshold, RowList, StepPlan, compile_plan
from dpmrt.solvers_np.plans.plan import COLUMNS


def small() -> StepPlan:
    """Two calls, two slots, one instruction."""
    rows = RowList(slots=2)
    rows.call(9.0, 0, level=(0.6, 0.8), state=0.5, history={0: 0.25})
    rows.call(4.0, 1, level=(0.8, 0.6), state=0.5, history={0: 0.1, 1: 0.4}, instruction=Clip(1.0), noise=0.3)
    return rows.plan(solver="by hand")


# Validation.

WRONG_COLUMNS = [
    ("t", [1.0, np.nan], r"column 't' is not finite\n.*nan in row 1"),
    ("noise", [np.inf, 0.0], r"column 'noise' is not finite\n.*inf in row 0"),
    ("weights", [[0.5, 0.5, 0], [np.nan, 0, 0]], r"column 'weights' is not finite\n.*row 1"),
    ("in_scale", [1.0, -np.inf], "column 'in_scale' is not finite"),
    ("t", [1.0, 2.0, 3.0], r"column 'alpha' of the plan has the wrong shape\n.*\(2,\)\n.*\(3,\)"),
    ("noise", [0.0], r"column 'noise' of the plan has the wrong shape\n.*\(1,\)\n.*\(2,\)"),
    ("convert", [0.0, 1.0], r"column 'convert' of the plan has the wrong shape\n.*\(2,\)\n.*\(2, 2\)"),
    ("weights", [0.5, 0.5], "a plan needs at least one row and a weight for the state"),
    ("out", [0, 2], r"column 'out' is out of range\n.*2 in row 1\n.*-1 to 1"),
    ("out", [-2, 0], r"column 'out' is out of range\n.*-2 in row 0"),
    ("quantity", [0, -1], r"column 'quantity' is out of range\n.*-1 in row 1\n.*0 to 1"),
    ("keep", [-1, 5], r"column 'keep' is out of range\n.*5 in row 1\n.*-1 to 1"),
    ("instruction", [-1, 1], r"column 'instruction' is out of range\n.*1 in row 1\n.*-1 to 0"),
    ("weights", [[0.5, 0, 0.1], [0.5, 0, 0]], r"reads a slot before anything wrote it\n.*slot 1 in row 0"),
]


@pytest.mark.parametrize(("column", "values", "text"), WRONG_COLUMNS)
def test_a_wrong_column_is_refused(column: str, values: Any, text: str) -> None:
    with pytest.raises(PlanError, match=text):
        dataclasses.replace(small(), **{column: values})


def test_a_plan_without_rows_is_refused() -> None:
    with pytest.raises(PlanError, match="at least one row"):
        dataclasses.replace(small(), **{name: [] for name, _, _ in COLUMNS})


def test_a_row_without_a_call_writes_no_slot() -> None:
    rows = RowList(slots=1)
    rows.move(state=1.0, history={0: 1.0})
    with pytest.raises(PlanError, match="before anything wrote it"):
        rows.plan()


def test_columns_are_copies_that_cannot_be_written() -> None:
    plan = small()
    for name, dtype, _ in COLUMNS:
        column = getattr(plan, name)
        assert column.dtype == np.dtype(dtype)
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0
    t = np.array([9.0, 4.0])
    plan = dataclasses.replace(plan, t=t)
    t[0] = 0
    assert plan.t.tolist() == [9.0, 4.0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.t = t  # type: ignore[misc]


def test_counts() -> None:
    plan = small()
    assert (plan.rows, plan.slots, plan.calls, plan.draws, plan.stochastic) == (2, 2, 2, 1, True)
    rows = RowList(slots=1)
    rows.call(3.0, 0, level=(0.6, 0.8), state=0.5, history={0: 0.5})
    rows.move(state=0.5, history={0: 0.5}, noise=1.0)
    plan = rows.plan()
    assert (plan.rows, plan.calls, plan.timesteps.tolist()) == (2, 1, [3.0])


def test_describe() -> None:
    rows = RowList(slots=2)
    rows.call(9.0, 0, level=(0.6, 0.8), state=0.5, history={0: 0.25}, instruction=Clip(2.0), convert=(1.5, -0.5))
    rows.move(state=1.0, history={0: 0.5}, noise=0.1, span=(0.64, 0.25))
    assert rows.plan().describe() == [
        {
            "row": 0,
            "t": 9.0,
            "alpha": 0.6,
            "sigma": 0.8,
            "in_scale": 1.0,
            "slot": 0,
            "convert": [1.5, -0.5],
            "instruction": Clip(2.0),
            "state": 0.5,
            "history": {0: 0.25},
            "noise": 0.0,
            "noise_instruction": None,
            "span": [0.0, 0.0],
        },
        {
            "row": 1,
            "t": None,
            "alpha": None,
            "sigma": None,
            "in_scale": 1.0,
            "slot": None,
            "convert": [0.0, 1.0],
            "instruction": None,
            "state": 1.0,
            "history": {0: 0.5},
            "noise": 0.1,
            "noise_instruction": None,
            "span": [0.64, 0.25],
        },
    ]
    json.dumps(compile_plan("dpmsolver++", "linear", 5).describe())


def test_equal_instructions_are_listed_once() -> None:
    plan = compile_plan("ddim", "linear", 10, clip=1.0)
    assert plan.instructions == (Clip(1.0),)
    assert plan.instruction.tolist() == [0] * 10


def test_the_digest_is_of_what_the_plan_does() -> None:
    plan = small()
    assert plan.digest() == dataclasses.replace(plan, meta={"note": "another"}).digest()
    assert plan.digest() != dataclasses.replace(plan, noise=[0.0, 0.31]).digest()
    assert plan.digest() != dataclasses.replace(plan, instructions=(Clip(1.5),)).digest()


# The step file.


def test_the_bytes_of_a_file() -> None:
    rows = RowList(slots=1)
    rows.call(7.0, 0, level=(0.6, 0.8), state=0.5, history={0: 0.25})
    data = rows.plan().to_bytes()
    header = (
        b'{"arrays":[{"dtype":"<f8","name":"t","shape":[1]},{"dtype":"<f8","name":"alpha","shape":[1]},'
        b'{"dtype":"<f8","name":"sigma","shape":[1]},{"dtype":"<f8","name":"in_scale","shape":[1]},'
        b'{"dtype":"<i4","name":"out","shape":[1]},{"dtype":"<i4","name":"quantity","shape":[1]},'
        b'{"dtype":"<f8","name":"convert","shape":[1,2]},{"dtype":"<i4","name":"instruction","shape":[1]},'
        b'{"dtype":"<f8","name":"restore","shape":[1,2]},{"dtype":"<i4","name":"keep","shape":[1]},'
        b'{"dtype":"<f8","name":"weights","shape":[1,2]},{"dtype":"<f8","name":"noise","shape":[1]},'
        b'{"dtype":"<i4","name":"noise_instruction","shape":[1]},{"dtype":"<f8","name":"span","shape":[1,2]}],'
        b'"end":[1.0,0.0],"init_scale":1.0,"instructions":[],"meta":{},"parts":1,"start":[0.6,0.8]}'
    )
    header += b" " * (-(16 + len(header)) % 64)
    assert data[:16] == b"DPMSTEPS\x02\x00\x00\x00" + struct.pack("<I", len(header))
    assert data[16 : 16 + len(header)] == header
    body = data[16 + len(header) : -32]
    assert len(body) == 14 * 64
    assert body[:64] == struct.pack("<d", 7.0) + b"\0" * 56
    assert body[4 * 64 : 5 * 64] == b"\0" * 64  # out
    assert body[7 * 64 : 7 * 64 + 4] == b"\xff\xff\xff\xff"  # instruction: none
    assert body[10 * 64 : 10 * 64 + 16] == struct.pack("<dd", 0.5, 0.25)
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


def sealed(data: bytes) -> bytes:
    return data + hashlib.sha256(data).digest()


def rewritten(change: Any) -> bytes:
    """Return a file whose header was changed and whose checksum is right."""
    data = small().to_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    header = json.loads(data[16 : 16 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-(16 + len(text)) % 64)
    return sealed(data[:12] + struct.pack("<I", len(text)) + text + data[16 + length : -32])


def with_shape(name: str, shape: list[Any]) -> bytes:
    def change(header: dict[str, Any]) -> None:
        next(entry for entry in header["arrays"] if entry["name"] == name)["shape"] = shape

    return rewritten(change)


def with_instruction(entry: dict[str, Any]) -> bytes:
    return rewritten(lambda header: header.update(instructions=[entry]))


GOOD = small().to_bytes()
MALFORMED = {
    "empty": (b"", "is not a step file\n.*b''\n.*DPMSTEPS"),
    "short": (GOOD[:40], r"is truncated\n.*40 bytes"),
    "another magic": (sealed(b"NUMPY\0\0\0" + GOOD[8:-32]), "is not a step file"),
    "a future version": (sealed(GOOD[:8] + b"\x03\0\0\0" + GOOD[12:-32]), "version that is not known here\n.*3\n.*2"),
    "truncated": (GOOD[:-1], "is truncated or was altered"),
    "cut in half": (GOOD[: len(GOOD) // 2], "is truncated or was altered"),
    "one bit": (GOOD[:700] + bytes([GOOD[700] ^ 1]) + GOOD[701:], "is truncated or was altered"),
    "longer": (GOOD + b"\0", "is truncated or was altered"),
    "a header that is no JSON": (sealed(GOOD[:16] + b"(" + GOOD[17:-32]), "has a header that cannot be read"),
    "a header of another type": (
        sealed(GOOD[:12] + struct.pack("<I", 48) + b"[]".ljust(48)),
        "has a header that cannot be read",
    ),
    "a header longer than the file": (
        sealed(GOOD[:12] + struct.pack("<I", 1 << 31) + GOOD[16:-32]),
        "has a header that cannot be read",
    ),
    "no list of arrays": (rewritten(lambda h: h.pop("arrays")), "has a header that cannot be read\n.*'arrays'"),
    "an array missing": (rewritten(lambda h: h["arrays"].pop()), "holds other arrays"),
    "an array twice": (rewritten(lambda h: h["arrays"].append(h["arrays"][0])), "holds other arrays"),
    "another dtype": (rewritten(lambda h: h["arrays"][0].update(dtype="<f4")), "holds other arrays"),
    "an object dtype": (rewritten(lambda h: h["arrays"][0].update(dtype="|O")), "holds other arrays"),
    "a huge shape": (with_shape("t", [1 << 40]), r"has no room for array 't'\n.*\(1099511627776,\)"),
    "a shape that overflows": (with_shape("weights", [1 << 40, 1 << 40]), "has no room for array 'weights'"),
    "a negative shape": (with_shape("t", [-2]), r"has no room for array 't'\n.*\(-2,\)"),
    "two negative axes": (with_shape("weights", [-2, -3]), "has no room for array 'weights'"),
    "a shape of nothing": (with_shape("t", [0]), "a plan needs at least one row"),
    "no shape": (with_shape("t", []), "column 't' of the plan has the wrong shape"),
    "arrays that are nothing": (rewritten(lambda h: h.update(arrays=None)), "has a header that cannot be read"),
    "a shape of another type": (with_shape("t", ["x"]), "has a header that cannot be read"),
    "a shape that is too small": (with_shape("noise", [1]), "column 'noise' of the plan has the wrong shape"),
    "an unknown instruction": (
        with_instruction({"name": "sharpen"}),
        "an instruction that this version does not know(.|\n)*clip.*(.|\n)*update",
    ),
    "an instruction without its number": (with_instruction({"name": "clip"}), "does not know"),
    "an instruction with one too many": (with_instruction({"name": "clip", "limit": 1, "x": 1}), "does not know"),
    "an instruction with a word": (with_instruction({"name": "clip", "limit": "big"}), "does not know"),
    "an instruction with infinity": (with_instruction({"name": "clip", "limit": float("inf")}), "does not know"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused(tmp_path: Path, case: str) -> None:
    data, text = MALFORMED[case]
    path = tmp_path / "bad.steps"
    path.write_bytes(data)
    with pytest.raises(PlanError, match=text) as caught:
        StepPlan.load(path)
    if not text.startswith(("column", "a plan")):
        assert str(path) in str(caught.value)


ODD_HEADERS = {
    "instructions that are no list": lambda h: h.update(instructions=7),
    "an instruction that is no object": lambda h: h.update(instructions=[7]),
    "an instruction named by a list": lambda h: h.update(instructions=[{"name": []}]),
    "meta that is no object": lambda h: h.update(meta=[1]),
    "a shape of infinity": lambda h: h["arrays"][0].update(shape=[float("inf")]),
}


@pytest.mark.parametrize("case", ODD_HEADERS)
def test_an_odd_header_is_refused(case: str) -> None:
    with pytest.raises(PlanError):
        StepPlan.from_bytes(rewritten(ODD_HEADERS[case]))


def test_a_deeply_nested_header_is_refused() -> None:
    text = b"[" * 100_000
    with pytest.raises(PlanError, match="has a header that cannot be read"):
        StepPlan.from_bytes(sealed(GOOD[:12] + struct.pack("<I", len(text)) + text))


def test_every_flipped_byte_of_a_file_is_noticed() -> None:
    for index in range(0, len(GOOD), 7):
        with pytest.raises(PlanError):
            StepPlan.from_bytes(GOOD[:index] + bytes([GOOD[index] ^ 0xFF]) + GOOD[index + 1 :])


def test_loading_never_unpickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it was unpickled",))

    path = tmp_path / "trap.steps"
    for data in (pickle.dumps(Trap()), sealed(GOOD[:16] + pickle.dumps(Trap()).ljust(2000, b"\0"))):
        path.write_bytes(data)
        with pytest.raises(PlanError):
            StepPlan.load(path)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *a, **k: pytest.fail("pickle was called"))
    path.write_bytes(GOOD)
    StepPlan.load(path)


def test_a_file_keeps_instructions_and_meta(tmp_path: Path) -> None:
    rows = RowList(slots=1)
    for limit in (Clip(1.5), DynamicThreshold(0.995, 2.0)):
        rows.call(5.0, 0, level=(0.6, 0.8), state=0.5, history={0: 0.5}, instruction=limit)
    plan = rows.plan(order=1, solver="by hand")
    loaded = StepPlan.load(str(plan.save(tmp_path / "a.steps")))
    assert loaded.instructions == (Clip(1.5), DynamicThreshold(0.995, 2.0))
    assert loaded.meta == {"order": 1, "solver": "by hand"}


def test_saving_leaves_no_partial_file(tmp_path: Path) -> None:
    small().save(tmp_path / "a.steps")
    small().save(tmp_path / "a.steps")
    assert [p.name for p in tmp_path.iterdir()] == ["a.steps"]
    with pytest.raises(OutputError, match="the folder does not exist"):
        small().save(tmp_path / "missing" / "a.steps")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="there is a folder of this name"):
        small().save(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.steps", "folder"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"the step file cannot be read\n.*none\.steps: No such file"):
        StepPlan.load(tmp_path / "none.steps")
