"""Step files that are wrong, each in one way: the corpus that the C++ reader is tested and fuzzed with.

`python tests/runtime/cpp_malformed.py` writes runtime/cpp/tests/corpus/steps anew, with what has to be said of each.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dpmrt.solvers_np import StepPlan, compile_plan
from dpmrt.solvers_np.plans.stepfile import pack

CORPUS = Path(__file__).resolve().parents[2] / "runtime/cpp/tests/corpus/steps"
FORMAT, VERSION = "DPMRT_ERROR_FORMAT", "DPMRT_ERROR_VERSION"


def signed(data: bytes) -> bytes:
    """Return a file without its checksum, with the right one."""
    return data + hashlib.sha256(data).digest()


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return header and arrays of a file."""
    (length,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[16 : 16 + length]), data[16 + length : -32]


def joined(header: Any, body: bytes, *, version: int = 2, length: int | None = None) -> bytes:
    """Return a file of header and arrays; a header may be text, to be wrong as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(16 + len(text)) % 64)
    return signed(struct.pack("<8sII", b"DPMSTEPS", version, len(text) if length is None else length) + text + body)


class Malformed:
    """The files by name, made of a small plan that is right."""

    def __init__(self) -> None:
        self.plan = compile_plan("ddpm", "linear", 2, clip=1.0)
        self.data = self.plan.to_bytes()
        self.header, self.body = split(self.data)
        self.files: dict[str, tuple[bytes, str, str]] = {}
        self.outside()
        self.headers()
        self.columns()

    def add(self, name: str, data: bytes, text: str, status: str = FORMAT) -> None:
        self.files[name] = (data, status, text)

    def with_header(self, change: Callable[[dict[str, Any]], object]) -> bytes:
        header = json.loads(json.dumps(self.header))
        change(header)
        return joined(header, self.body)

    def with_column(self, name: str, index: Any, value: float) -> bytes:
        """Return the plan with a number that StepPlan itself would refuse."""
        header, arrays = dict(self.header), columns_of(self.plan)
        header.pop("arrays")
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value
        return pack(header, arrays)

    def outside(self) -> None:
        data = self.data
        self.add("empty", b"", "is not a step file")
        self.add("magic", b"DPMSTEPZ" + data[8:], "is not a step file")
        self.add("only-magic", b"DPMSTEPS", "is truncated")
        self.add("truncated", data[:-100], "is truncated or was altered")
        self.add("altered", data[:600] + b"\xff" + data[601:], "is truncated or was altered")
        self.add("longer", data + b"\0", "is truncated or was altered")
        self.add("version-1", joined(self.header, self.body, version=1), "has a version", VERSION)
        self.add("version-3", joined(self.header, self.body, version=3), "has a version", VERSION)
        self.add("header-beyond", joined(self.header, self.body, length=1 << 31), "has a header that cannot be read")
        self.add("header-none", joined(self.header, self.body, length=0), "has a header that cannot be read")
        self.add("arrays-missing", joined(self.header, b""), "has no room for array")
        self.add("arrays-half", joined(self.header, self.body[: len(self.body) // 2]), "has no room for array")

    def headers(self) -> None:
        unreadable = "has a header that cannot be read"
        for name, text in {
            "json-none": b"not JSON",
            "json-list": b"[]",
            "json-open": b'{"arrays":[',
            "json-deep": b"[" * 5000,
            "json-twice": b'{"arrays":[],"arrays":[]}',
            "json-no-arrays": b"{}",
            "json-arrays-number": b'{"arrays":3}',
            "json-arrays-empty": b'{"arrays":[]}',
            "json-bad-utf8": b'{"arrays":"\xff\xfe"}',
        }.items():
            self.add(name, joined(text, self.body), unreadable)
        arrays = lambda header: header["arrays"]  # noqa: E731
        self.add("array-left-out", self.with_header(lambda h: arrays(h).pop()), "holds other arrays")
        self.add("array-twice", self.with_header(lambda h: arrays(h).append(arrays(h)[0])), "holds other arrays")
        self.add("array-renamed", self.with_header(lambda h: arrays(h)[1].update(name="beta")), "holds other arrays")
        self.add("array-other-type", self.with_header(lambda h: arrays(h)[4].update(dtype="<i8")), "holds other")
        self.add("rows-negative", self.with_header(lambda h: arrays(h)[0].update(shape=[-2])), unreadable)
        self.add("rows-none", self.with_header(lambda h: arrays(h)[0].update(shape=[0])), "has no rows, or too many")
        self.add("rows-huge", self.with_header(lambda h: [a["shape"].__setitem__(0, 1 << 40) for a in arrays(h)]), "")
        self.add("rows-uneven", self.with_header(lambda h: arrays(h)[2].update(shape=[1])), "has the wrong shape")
        self.add("rank", self.with_header(lambda h: arrays(h)[2].update(shape=[2, 1])), "has the wrong shape")
        self.add(
            "weights-flat", self.with_header(lambda h: arrays(h)[10].update(shape=[2, 0])), "has the wrong shape"
        )
        unknown = "holds an instruction that this version does not know"
        self.add("instruction-unknown", self.with_header(lambda h: h.update(instructions=[{"name": "run"}])), unknown)
        clip = {"name": "clip", "limit": "1"}
        self.add("instruction-text", self.with_header(lambda h: h.update(instructions=[clip])), unknown)
        self.add(
            "instruction-none", self.with_header(lambda h: h.update(instructions=[])), "column 'instruction' is out"
        )
        for number, entry in enumerate(
            (
                {"name": "clip", "limit": -1.0},
                {"name": "dynamic_threshold", "ratio": -5.0, "limit": 1.0},
                {"name": "dynamic_threshold", "ratio": 1e300, "limit": 1.0},
                {"name": "dynamic_threshold", "ratio": 0.9, "limit": 0.0},
            )
        ):
            file = self.with_header(lambda h, entry=entry: h.update(instructions=[entry]))  # type: ignore[misc]
            self.add(f"instruction-range-{number}", file, "an instruction has a number out of range")
        self.add("scale-none", self.with_header(lambda h: h.pop("init_scale")), "has no init_scale in its header")
        self.add("start-short", self.with_header(lambda h: h.update(start=[1.0])), "has no start in its header")
        self.add("parts", self.with_header(lambda h: h.update(parts=3)), "one part, or a second")

    def columns(self) -> None:
        for name, index, value, text in (
            ("t", 0, np.nan, "column 't' is not finite"),
            ("weights", (1, 0), np.inf, "column 'weights' is not finite"),
            ("out", 0, 7, "column 'out' is out of range"),
            ("out", 1, -2, "column 'out' is out of range"),
            ("quantity", 0, -1, "column 'quantity' is out of range"),
            ("keep", 0, 1 << 30, "column 'keep' is out of range"),
            ("instruction", 0, 5, "column 'instruction' is out of range"),
            ("noise_instruction", 0, 0, "names an instruction for another use"),
            ("out", slice(None), -1, "reads a slot before anything wrote it"),
        ):
            where = "all" if isinstance(index, slice) else str(index).strip("()").replace(", ", "-")
            self.add(f"{name}-{where}-{value}".lower(), self.with_column(name, index, value), text)


def columns_of(plan: StepPlan) -> dict[str, Any]:
    """Return the arrays of a plan in the file's order."""
    header, _ = split(plan.to_bytes())
    return {entry["name"]: np.asarray(getattr(plan, entry["name"]), entry["dtype"]) for entry in header["arrays"]}


def write(folder: Path = CORPUS) -> None:
    """Write every file, and for each a line of what has to be said: name, status, part of the text."""
    folder.mkdir(parents=True, exist_ok=True)
    files = Malformed().files
    for name, (data, _, _) in files.items():
        (folder / f"{name}.steps").write_bytes(data)
    lines = [f"{name}\t{status}\t{text}\n" for name, (_, status, text) in sorted(files.items())]
    (folder / "expected.tsv").write_text("".join(lines))


if __name__ == "__main__":
    write()
