from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import Make, reference

from dpmrt.engines import read_manifest
from dpmrt.errors import ArrayError, BackendError, MissingExtraError, OptionError
from dpmrt.runtime.backends import BACKENDS, Backend, FunctionBackend, Tensor, open_backend


def open_plain(bundle: Path, engine: str) -> Backend:
    options: dict[str, Any] = {"function": reference} if engine == "numpy" else {}
    return open_backend(engine, bundle, read_manifest(bundle).unet, **options)


def buffers(batch: int = 2) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    x = np.random.default_rng(0).standard_normal((batch, 1, 8, 8), dtype=np.float32)
    inputs = {"sample": x, "timestep": np.linspace(3, 700, batch, dtype=np.float32)}
    return inputs, {"out_sample": np.full((batch, 1, 8, 8), np.nan, np.float32)}


@pytest.fixture(params=["onnxruntime", "numpy"])
def backend(request: pytest.FixtureRequest, plain: Path) -> Backend:
    return open_plain(plain, request.param)


def test_every_backend_follows_the_protocol(backend: Backend) -> None:
    assert isinstance(backend, Backend)
    assert [spec.name for spec in backend.inputs] == ["sample", "timestep"]
    assert str(backend.outputs[0]).startswith("out_sample float32[")


def test_a_call_writes_into_the_buffers_it_was_bound_to(backend: Backend) -> None:
    inputs, outputs = buffers()
    address = outputs["out_sample"].ctypes.data
    call = backend.bind(inputs, outputs)
    for start in (1.0, -2.0):
        inputs["sample"].fill(start)
        inputs["timestep"] += 1
        call()
        np.testing.assert_allclose(outputs["out_sample"], reference(**inputs), rtol=1e-5, atol=1e-6)
    assert outputs["out_sample"].ctypes.data == address


def test_the_backend_keeps_its_buffers_alive(plain: Path) -> None:
    call = open_plain(plain, "onnxruntime").bind(*buffers())
    np.zeros(10_000_000)
    call()


def test_many_bindings_of_one_backend_do_not_disturb_each_other(backend: Backend) -> None:
    inputs, first = buffers()
    second = {"out_sample": np.zeros_like(first["out_sample"])}
    write_first, write_second = backend.bind(inputs, first), backend.bind(inputs, second)
    write_first()
    kept = first["out_sample"].copy()
    inputs["sample"] *= 2
    write_second()
    np.testing.assert_array_equal(first["out_sample"], kept)
    assert not np.array_equal(second["out_sample"], kept)


def test_an_output_that_aliases_an_input_is_refused(backend: Backend) -> None:
    inputs, _ = buffers()
    with pytest.raises(ArrayError, match="shares memory with an input"):
        backend.bind(inputs, {"out_sample": inputs["sample"]})


@pytest.mark.parametrize(
    ("role", "change", "message"),
    [
        ("sample", lambda a: a.astype(np.float64), "does not fit the graph"),
        ("sample", lambda a: a[:, :, :4], "does not fit the graph"),
        ("sample", lambda a: a[0], "does not fit the graph"),
        ("sample", lambda a: a[::-1], "not contiguous"),
        ("out_sample", lambda a: np.broadcast_to(a[:1], a.shape), "not contiguous"),
    ],
)
def test_a_buffer_that_does_not_fit_is_named(backend: Backend, role: str, change: Any, message: str) -> None:
    inputs, outputs = buffers()
    changed = inputs if role in inputs else outputs
    changed[role] = change(changed[role])
    with pytest.raises(ArrayError, match=f"`{role}` .*{message}|`{role}` is {message}"):
        backend.bind(inputs, outputs)


def test_a_read_only_output_is_refused(backend: Backend) -> None:
    inputs, outputs = buffers()
    outputs["out_sample"].flags.writeable = False
    with pytest.raises(ArrayError, match="read-only"):
        backend.bind(inputs, outputs)


def test_missing_and_unknown_buffers_are_refused(backend: Backend) -> None:
    inputs, outputs = buffers()
    with pytest.raises(ArrayError, match="input buffers are not those of the graph") as caught:
        backend.bind({"sample": inputs["sample"]}, outputs)
    assert caught.value.expected == "sample, timestep"
    with pytest.raises(ArrayError, match="output buffers"):
        backend.bind(inputs, {"x": outputs["out_sample"]})


def test_a_closed_backend_says_so(backend: Backend) -> None:
    call = backend.bind(*buffers())
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        call()


def test_a_function_that_returns_another_shape_is_refused() -> None:
    spec = Tensor("x", "float32", ("n",))
    backend = FunctionBackend(lambda x: x[:1], [spec], [Tensor("y", "float32", ("n",))])
    with pytest.raises(ArrayError, match="another shape for `y`"):
        backend.bind({"x": np.zeros(2, np.float32)}, {"y": np.zeros(2, np.float32)})()


def test_an_unknown_engine_lists_what_there_is(plain: Path) -> None:
    with pytest.raises(OptionError, match="unknown engine") as caught:
        open_plain(plain, "tensorrtx")
    assert caught.value.expected == "auto, " + ", ".join(sorted(BACKENDS))


def test_unknown_engine_options_are_refused(plain: Path) -> None:
    with pytest.raises(OptionError, match="no such option") as caught:
        open_backend("auto", plain, read_manifest(plain).unet, thread=2)
    assert (caught.value.got, caught.value.expected) == ("thread", "threads")
    most = 4 * (os.cpu_count() or 1)
    for threads in (0, True, 1.0, "2", most + 1, 10**30):
        with pytest.raises(OptionError, match="threads is out of range"):
            open_backend("onnxruntime", plain, read_manifest(plain).unet, threads=threads)
    open_backend("onnxruntime", plain, read_manifest(plain).unet, threads=np.int64(1)).close()
    with pytest.raises(OptionError, match="was given none"):
        open_backend("numpy", plain, read_manifest(plain).unet)


def test_the_number_of_threads_can_be_set(plain: Path) -> None:
    inputs, outputs = buffers()
    open_backend("onnxruntime", plain, read_manifest(plain).unet, threads=1).bind(inputs, outputs)()
    assert np.isfinite(outputs["out_sample"]).all()


def test_a_broken_graph_is_a_backend_error(make_bundle: Make) -> None:
    bundle = make_bundle()
    network = read_manifest(bundle).unet
    (bundle / "unet/model.onnx").write_bytes(b"no onnx")
    with pytest.raises(BackendError, match="ONNX Runtime refuses the network") as caught:
        open_backend("auto", bundle, network)
    assert "dpmrt export" in str(caught.value.fix)


def test_a_missing_library_says_what_to_install(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError) as caught:
        open_plain(plain, "auto")
    assert caught.value.fix == "pip install 'dpmrt[cpu]'"


@pytest.mark.parametrize("chained", ["cause", "context"])
def test_a_ctrl_c_while_the_library_loads_is_one(plain: Path, monkeypatch: pytest.MonkeyPatch, chained: str) -> None:
    real = builtins.__import__

    def interrupted(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as stop:
                error = ImportError("initialization failed")
                raise error from (stop if chained == "cause" else None)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_plain(plain, "auto")


def test_onnx_runtime_writes_nothing_to_stderr(make_bundle: Make) -> None:
    bundle = make_bundle()
    code = (
        "import sys; from pathlib import Path; from dpmrt.errors import BackendError\n"
        "from dpmrt.runtime.backends.ort import OrtBackend\n"
        "OrtBackend(Path(sys.argv[1]))\n"
        "Path(sys.argv[1]).write_bytes(b'no onnx')\n"
        "try: OrtBackend(Path(sys.argv[1]))\n"
        "except BackendError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle / "unet/model.onnx")], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
