"""What a certificate holds: calls over shapes and times, backends, limits, a picture, and what makes it fail."""

from __future__ import annotations

import gc
import json
import math
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from dpmrt.engines import CallParity, Precision, read_manifest, read_parity, record_file, write_manifest
from dpmrt.errors import OptionError, VerificationError
from dpmrt.export import verify
from dpmrt.export.certificate import LIMITS, limits_of, proof
from dpmrt.export.certificate.cases import Case
from dpmrt.export.certificate.limits import beyond, failures_of
from dpmrt.export.certificate.measures import compare_call
from dpmrt.export.cli.verify import command
from dpmrt.export.sources import Source

Export = Callable[..., Path]
FAST: dict[str, Any] = {"steps": 2, "plot": False}


@pytest.fixture
def bundle(exported: Export) -> Path:
    return exported()


def with_graph(bundle: Path, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> None:
    """Change the last convolution of the bundle's graph, and let the manifest agree with it."""
    path = bundle / "unet/model.onnx"
    model = onnx.load(path)
    (tensor,) = (t for t in model.graph.initializer if t.name.endswith("conv_out.bias"))
    value = change(onnx.numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    onnx.save(model, path)
    manifest = read_manifest(bundle, check=False)
    files = {**manifest.files, "unet/model.onnx": record_file(path)}
    write_manifest(bundle, msgspec.structs.replace(manifest, files=files))


def with_precision(bundle: Path, precision: Precision) -> None:
    """Let the manifest promise another precision, with a second graph where it is emulated."""
    manifest = read_manifest(bundle)
    files = dict(manifest.files)
    if precision.emulated:
        shutil.copy(bundle / manifest.unet.path, bundle / precision.emulated)
        files[precision.emulated] = record_file(bundle / precision.emulated)
    unet = msgspec.structs.replace(manifest.unet, precision=precision)
    write_manifest(bundle, msgspec.structs.replace(manifest, unet=unet, files=files))


def test_calls_cover_times_and_batches(bundle: Path) -> None:
    report = verify(bundle, seed=5, **FAST)
    (ran,) = report.backends
    assert [(call.sizes["batch"], call.times) for call in ran.calls] == [
        (1, (0.0,)),
        (1, (pytest.approx(0.37),)),
        (1, (499.0,)),
        (1, (999.0,)),
        (3, (pytest.approx(0.37), 499.0, 999.0)),
        (3, (999.0, 0.0, pytest.approx(0.37))),
    ]
    assert [call.seed for call in ran.calls] == [5, 6, 7, 8, 9, 10]
    assert all(call.max_relative is not None and call.max_relative <= 1e-5 for call in ran.calls)
    assert report.limits == LIMITS["fp32"]
    assert report.peak is not None
    assert report.peak.of == "sample"  # a network without training makes no data
    assert report.machine


def test_a_call_beyond_its_limit_fails_even_where_the_trajectory_does_not(bundle: Path) -> None:
    with_graph(bundle, lambda bias: bias + 3e-4)
    report = verify(bundle, tolerance=0.5, **FAST)
    (ran,) = report.backends
    assert ran.drift is not None
    assert ran.drift < 0.5
    assert not report.passed
    assert ran.failures[0].startswith("call 1 (batch 1, t = 0): an error of")
    assert ran.failures[0].endswith("of the RMS, limit 1e-05")


def test_a_graph_that_gives_nan_fails_and_says_where(bundle: Path) -> None:
    with_graph(bundle, lambda bias: bias * np.float32("nan"))
    report = verify(bundle, steps=3)
    (ran,) = report.backends
    assert not report.passed
    assert report.drift is None
    assert ran.calls[0].max_abs is None
    assert ran.failures[0] == "call 1 (batch 1, t = 0): the bundle gave NaN or infinity"
    assert ran.failures[-1].startswith("trajectory: the network returned NaN or infinity: call 1 of 3, t = 999")
    assert read_parity(bundle) == report
    result = CliRunner().invoke(command, [str(bundle), "--steps", "3", "--no-write"])
    assert result.exit_code == 1
    assert "call none, drift none: FAIL" in result.stdout


def test_half_precision_is_judged_by_its_own_limits_on_both_backends(bundle: Path) -> None:
    with_precision(bundle, Precision("fp16", emulated="unet/emulated.onnx"))
    with_graph(bundle, lambda bias: bias + 1e-3)
    report = verify(bundle, steps=4)
    assert [ran.backend for ran in report.backends] == ["onnxruntime", "emulated"]
    assert [ran.graph for ran in report.backends] == ["unet/model.onnx", "unet/emulated.onnx"]
    assert report.backends[0].onnx_sha256 != report.backends[1].onnx_sha256
    assert report.limits == LIMITS["fp16"]
    assert report.passed, [ran.failures for ran in report.backends]
    assert report.backends[0].psnr is not None
    assert 40 <= report.backends[0].psnr < 100
    assert (bundle / "drift.png").exists()
    only = verify(bundle, backends=["emulated"], write=False, **FAST)
    assert [ran.backend for ran in only.backends] == ["emulated"]


def test_a_psnr_below_the_limit_fails(bundle: Path) -> None:
    with_graph(bundle, lambda bias: bias + 2.0)
    with_precision(bundle, Precision("bf16", emulated="unet/emulated.onnx"))
    report = verify(bundle, **FAST)
    (ran,) = report.backends
    assert ran.backend == "emulated"
    assert not report.passed
    assert "dB at the end, limit 30 dB" in ran.failures[-1]


BACKENDS_REFUSED = {
    "bf16 on ONNX Runtime": (
        Precision("bf16", emulated="unet/emulated.onnx"),
        ["onnxruntime"],
        r"onnxruntime cannot run(.|\n)*no bf16 kernels on the CPU(.|\n)*expected: emulated",
    ),
    "nothing emulated": (Precision(), ["emulated"], r"emulated cannot run(.|\n)*fp32 and has no emulated graph"),
    "no backend left": (Precision("bf16"), None, r"no backend here can run(.|\n)*no bf16 kernels(.|\n)*no emulated"),
}


@pytest.mark.parametrize(("precision", "wanted", "text"), BACKENDS_REFUSED.values(), ids=BACKENDS_REFUSED)
def test_backends_that_cannot(bundle: Path, precision: Precision, wanted: list[str] | None, text: str) -> None:
    with_precision(bundle, precision)
    with pytest.raises(VerificationError, match=text):
        verify(bundle, backends=wanted, **FAST)
    assert not (bundle / "parity.json").exists()


def test_the_python_function_backend_is_none_to_verify(bundle: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown engine(.|\n)*got: +'numpy'"):
        verify(bundle, backends=["numpy"], **FAST)


def test_tolerance_replaces_the_drift_alone() -> None:
    limits = limits_of("bf16", 0.2)
    assert (limits.call, limits.drift, limits.psnr) == (LIMITS["bf16"].call, 0.2, LIMITS["bf16"].psnr)


def test_the_picture(bundle: Path, tmp_path: Path) -> None:
    verify(bundle, steps=3, batch=5)
    with Image.open(bundle / "drift.png") as picture:
        assert picture.format == "PNG"
        assert picture.size[0] > 800
    verify(bundle, steps=2, plot=tmp_path / "else.png", write=False)
    assert (tmp_path / "else.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_an_earlier_verification_does_not_stay(bundle: Path) -> None:
    verify(bundle, steps=2)
    assert (bundle / "drift.png").exists()
    verify(bundle, steps=3, plot=False)
    assert not (bundle / "drift.png").exists()


def test_a_report_for_programs(bundle: Path) -> None:
    result = CliRunner().invoke(command, [str(bundle), "--steps", "2", "--json", "--no-plot"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads((bundle / "parity.json").read_text())
    assert printed["version"] == 2
    assert printed["passed"] is True


WRONG_OPTIONS = {
    "two minds": (["--plot", "a.png", "--no-plot"], "contradict each other"),
    "no PNG": (["--plot", "a.svg"], r"the picture is a PNG(.|\n)*a\.svg"),
    "no shape": (["--shape", "1,8,x"], r"no shape of a sample(.|\n)*'1,8,x'"),
    "another shape": (["--shape", "1,8,9"], r"no samples of this shape(.|\n)*\(1, 8, 9\)(.|\n)*\(1, 8, 8\)"),
}


@pytest.mark.parametrize(("options", "text"), WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_wrong_options(bundle: Path, options: list[str], text: str) -> None:
    result = CliRunner().invoke(command, [str(bundle), *options])
    assert isinstance(result.exception, OptionError)
    assert result.exc_info is not None
    with pytest.raises(OptionError, match=text):
        raise result.exception
    assert not (bundle / "parity.json").exists()


def test_interrupted_it_leaves_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    before = sorted(path.name for path in bundle.rglob("*"))
    monkeypatch.setattr(proof, "run_backend", interrupt)
    with pytest.raises(KeyboardInterrupt):
        verify(bundle, steps=2)
    assert sorted(path.name for path in bundle.rglob("*")) == before


def test_torch_is_let_go_before_the_bundle_runs(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[weakref.ref[Any]] = []
    run_calls, run_backend = proof.run_calls, proof.run_backend

    def watched_calls(source: Any, *rest: Any) -> Any:
        models.append(weakref.ref(source.model))
        return run_calls(source, *rest)

    def watched_backend(*rest: Any) -> Any:
        assert [model() for model in models] == [None]
        return run_backend(*rest)

    monkeypatch.setattr(proof, "run_calls", watched_calls)
    monkeypatch.setattr(proof, "run_backend", watched_backend)
    gc.disable()
    try:
        assert verify(bundle, **FAST).passed
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("largest", "rms", "said"),
    [
        (0.03, 0.006, []),
        (0.03, 0.02, ["errors whose RMS is"]),
        (0.06, 0.006, ["an error of"]),
        (math.nan, math.nan, ["an error of", "errors whose RMS is"]),
        (None, None, []),
    ],
)
def test_half_precision_is_judged_by_the_rms_and_by_the_worst_element(
    largest: float | None, rms: float | None, said: list[str]
) -> None:
    call = CallParity({"batch": 1}, (0.0,), 0, 1.0, largest, largest, rms)
    assert [what for _, _, what in beyond(call, LIMITS["fp16"])] == said


def test_torch_rounds_as_little_as_it_can_beside_fp32(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[bool] = set()
    predict = Source.predict

    def spy(self: Source, tensors: Any) -> Any:
        seen.add(torch.backends.mkldnn.enabled)
        return predict(self, tensors)

    monkeypatch.setattr(Source, "predict", spy)
    before = torch.backends.mkldnn.enabled
    verify(bundle, write=False, **FAST)
    assert seen == {False}
    assert torch.backends.mkldnn.enabled == before


def test_an_error_where_torch_gives_zero_is_beyond_any_limit() -> None:
    case, nothing = Case({"batch": 1}, (0.0,), 0, {}), np.zeros((1, 4), np.float32)
    same = compare_call(case, nothing, nothing)
    assert (same.max_abs, same.max_relative, same.rms_relative) == (0.0, 0.0, 0.0)
    other = compare_call(case, nothing, nothing + np.float32(1e-9))
    assert (other.max_relative, other.rms_relative) == (math.inf, math.inf)
    assert failures_of([case], [other], LIMITS["fp32"]) == [
        "call 1 (batch 1, t = 0): an error of inf of the RMS, limit 1e-05"
    ]
