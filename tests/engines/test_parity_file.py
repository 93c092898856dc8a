"""parity.json is read as it was written, by this dpmrt and by the one before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dpmrt.engines import BackendParity, CallParity, Limits, ParityReport, StepDrift, read_parity, write_parity
from dpmrt.errors import BundleError

STEP = {"t": 999.0, "rms": 1.0, "max_abs": 2e-6, "drift": 3e-7}
VERSION_1: dict[str, Any] = {
    "format": "dpmrt-parity",
    "version": 1,
    "passed": True,
    "drift": 3e-7,
    "tolerance": 1e-4,
    "scheduler": "DDIMScheduler",
    "backend": "onnxruntime",
    "options": {"steps": 1, "guidance": None},
    "steps": [STEP],
    "onnx_sha256": "0" * 64,
    "weights_sha256": "1" * 64,
    "date": "2026-01-01T00:00:00Z",
    "versions": {"dpmrt": "0.1.0"},
}


def call(error: float | None) -> CallParity:
    return CallParity({"batch": 1}, (0.0,), 0, 1.0, error, error, error)


def ran(*calls: CallParity, drift: float | None = 1e-6) -> BackendParity:
    return BackendParity("onnxruntime", True, "unet/model.onnx", "0" * 64, (StepDrift(**STEP),), drift, calls=calls)


def report(*backends: BackendParity) -> ParityReport:
    return ParityReport(
        format="dpmrt-parity",
        version=2,
        passed=True,
        precision="fp16",
        limits=Limits(1e-2, None, 40.0),
        scheduler="DDIMScheduler",
        options={"steps": 1},
        backends=backends,
        weights_sha256="1" * 64,
        date="2026-01-01T00:00:00Z",
        versions={},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_parity(tmp_path) is None
    written = report(ran(call(1e-6), call(None)))
    write_parity(tmp_path, written)
    assert read_parity(tmp_path) == written


def test_version_1(tmp_path: Path) -> None:
    (tmp_path / "parity.json").write_text(json.dumps(VERSION_1))
    read = read_parity(tmp_path)
    assert read is not None
    assert (read.version, read.passed, read.date) == (1, True, VERSION_1["date"])
    assert read.limits == Limits(call=None, drift=1e-4)
    assert read.drift == 3e-7
    assert read.backends[0].steps == (StepDrift(**STEP),)
    assert read.backends[0].worst_call is None


def test_the_worst_call_and_the_worst_drift() -> None:
    assert ran(call(1e-6), call(3e-6), call(2e-6)).worst_call == call(3e-6)
    assert ran(call(1e-6), call(None)).worst_call == call(None)
    assert report(ran(drift=1e-6), ran(drift=2e-6)).drift == 2e-6
    assert report(ran(drift=1e-6), ran(drift=None)).drift is None


DAMAGED = {
    "unknown version": ({**VERSION_1, "version": 3}, r"unknown `version`(.|\n)*got: +3(.|\n)*expected: +1 or 2"),
    "no version": ({"passed": True}, r"cannot be read(.|\n)*version"),
    "half of version 2": ({**VERSION_1, "version": 2}, r"cannot be read(.|\n)*dpmrt verify BUNDLE"),
}


@pytest.mark.parametrize(("content", "text"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(tmp_path: Path, content: dict[str, Any], text: str) -> None:
    (tmp_path / "parity.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=text):
        read_parity(tmp_path)
