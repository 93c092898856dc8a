"""Guidance on devices that are simulated and compute: the kernels, and whole runs against those on the host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import device_bundles
import fake_cupy
import fake_tensorrt
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))
from tiny_bundles import write_bundle
from tiny_conditioned import write_conditioned

from dpmrt.runtime import Guidance, load
from dpmrt.runtime.guidance.classifier import GuideMean, GuideNoise
from dpmrt.runtime.guidance.rescale import rescale_guided
from dpmrt.solvers_np import CorrectX0
from dpmrt.solvers_np.execution.device.kernels import Kernels
from dpmrt.solvers_np.execution.device.place import Place


@pytest.fixture
def gpu(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    device_bundles.put_gpu(monkeypatch)
    return fake_tensorrt.install(monkeypatch)


@pytest.fixture
def labelled(tmp_path: Path, gpu: Any) -> Path:
    root = write_bundle(tmp_path / "bundle", labels=True)
    device_bundles.build(root)
    return root


def _there(cupy: Any, place: Place, values: Any) -> Any:
    array = place.zeros(values.shape, values.dtype)
    place.upload(array, values)
    return array


@pytest.mark.parametrize(
    ("source", "target"), [("float16", "float32"), ("float32", "float32"), ("float64", "float64")]
)
@pytest.mark.parametrize("outer", [1, 5])
def test_kernels_combine_and_rescale_as_numpy_does(cupy: Any, source: str, target: str, outer: int) -> None:
    check_kernels(cupy, source, target, outer)


def check_kernels(cupy: Any, source: str, target: str, outer: int) -> None:
    """Of a network whose outputs have more channels than the state, on axis 1 or behind others."""
    place, batch, block, given, kept = Place.new(cupy), 3, 42, 63, 50
    rng = np.random.default_rng(0)
    raw = (rng.standard_normal((2 * batch * outer, given)) * 2 + 5).astype(source)
    raw[2 * outer] = 0.25
    scales = np.array([2.5, 1.0, -3.0], target)
    out = np.full((batch * outer, kept), 7, target)
    there, result = _there(cupy, place, raw), _there(cupy, place, out)
    layout: Any = {"pitches": (given, kept), "outer": batch * outer, "batch": batch}
    kernels, null = Kernels(place), batch * outer * given
    with place.work():
        kernels.combine(there, result, block, null=null, scales=_there(cupy, place, scales), **layout)()
    wide = raw.astype(target)
    first, second = wide[: batch * outer, :block], wide[batch * outer :, :block]
    expected = second + np.repeat(scales, outer)[:, None] * (first - second)
    got = place.download(result)
    tolerance = 1e-5 if target == "float32" else 1e-12
    np.testing.assert_allclose(got[:, :block], expected, rtol=tolerance, atol=10 * tolerance)
    with place.work():
        factor = _there(cupy, place, np.array([0.7], target))
        kernels.rescale(there, result, block, factor=factor, **layout)()
    flat = np.zeros(outer * block, target)
    samples = expected.reshape(batch, outer, block)
    rescale_guided(samples, first.reshape(batch, outer, block), 0.7, flat, flat.reshape(outer, block))
    got = place.download(result)
    np.testing.assert_allclose(got[:, :block], samples.reshape(-1, block), rtol=10 * tolerance, atol=10 * tolerance)
    assert (got[:, block:] == 7).all()


FORMS: list[Any] = [
    [3.0, 0.5],
    Guidance(4.0, rescale=0.7),
    Guidance([4.0, 1.0], rescale=1.0, interval=(0.2, 0.6)),
    Guidance(5.0, schedule="cosine"),
    Guidance(schedule=[1.0, 2.0, 0.0, -1.0, 4.0]),
    Guidance(schedule=lambda t: [t / 500, 1.0], unit="time", rescale=0.3),
]


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_every_form_is_that_of_the_host(labelled: Path, number: int) -> None:
    request: Any = {"steps": 5, "label": [0, 2], "guidance": FORMS[number], "seed": 3}
    with load(labelled, "onnxruntime") as host, load(labelled, "tensorrt") as device:
        expected = host.sample(2, **request)
        for _ in range(3):
            got = device.sample(2, **request)
            np.testing.assert_allclose(got, expected, atol=2e-5 * max(1, float(np.abs(expected).max())))
    assert [kind for kind, _ in fake_cupy.log].count("graph") == 2


@pytest.mark.parametrize("variant", [{"half": True}, {"doubled_out": True}])
def test_rescaling_of_halves_and_of_networks_with_a_variance(tmp_path: Path, gpu: Any, variant: Any) -> None:
    root = write_bundle(tmp_path / "bundle", labels=True, **variant)
    device_bundles.build(root)
    request: Any = {"steps": 4, "label": [0, 2], "guidance": Guidance([4.0, 2.0], rescale=0.8)}
    if "doubled_out" in variant:
        request |= {"solver": "ddpm", "variance": "learned_range"}
    with load(root, "onnxruntime") as host, load(root, "tensorrt") as device:
        expected = host.sample(2, **request)
        for _ in range(3):
            np.testing.assert_allclose(
                device.sample(2, **request), expected, atol=5e-3 if "half" in variant else 5e-5
            )


def test_one_capture_serves_every_table_of_scales_and_another_all_rescaling(labelled: Path) -> None:
    asked = [
        Guidance(3.0, rescale=0.5),
        Guidance(schedule=[1.0, 2.0, 0.0, -1.0, 4.0], rescale=0.9),
        Guidance([2.0, 1.0], interval=(0, 0.5), rescale=0.1),
        Guidance([2.0, 1.0], interval=(0, 0.5)),
        Guidance(2.0),
        3.0,
    ]
    with load(labelled, "onnxruntime") as host, load(labelled, "tensorrt") as device:
        for guidance in asked:
            request: Any = {"steps": 5, "label": [0, 2], "guidance": guidance}
            np.testing.assert_allclose(device.sample(2, **request), host.sample(2, **request), atol=5e-5)
    # the first run with and the first without rescaling are plain ones
    assert [kind for kind, _ in fake_cupy.log].count("graph") == 4


@pytest.mark.parametrize("of_scale", [("batch",), ()])
def test_a_graph_that_guides_by_itself_is_told_each_scale(tmp_path: Path, gpu: Any, of_scale: Any) -> None:
    conditions: Any = {"encoder_hidden_states": ("float32", ("batch", 7, 6))}
    root = write_conditioned(
        tmp_path / "bundle", sample=("batch", 4, 8, 8), conditions=conditions, folded=True, scale=of_scale
    )
    device_bundles.build(root)
    text = np.random.default_rng(0).standard_normal((2, 2, 7, 6)).astype(np.float32)
    request: Any = {
        "steps": 4,
        "conditions": {"encoder_hidden_states": text[0]},
        "negative": {"encoder_hidden_states": text[1]},
    }
    with load(root, "onnxruntime") as host, load(root, "tensorrt") as device:
        for guidance in (Guidance(schedule=[3.0, 1.0, 5.0, -2.0]), 2.0, Guidance(4.0, interval=(0.5, 1.0)), 7.5):
            expected = host.sample(2, guidance=guidance, **request)
            np.testing.assert_allclose(device.sample(2, guidance=guidance, **request), expected, atol=5e-5)
    assert [kind for kind, _ in fake_cupy.log].count("graph") == 3


def test_a_model_without_a_plan_is_guided_by_time(labelled: Path) -> None:
    asked = Guidance(schedule=lambda t: [t / 500, 2.0], unit="time", rescale=0.4)
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    with load(labelled, "onnxruntime") as host, load(labelled, "tensorrt") as device:
        there, here = (pipeline.model(2, label=[0, 2], guidance=asked) for pipeline in (device, host))
        for t in (900.0, 20.0, 500.0):
            np.testing.assert_allclose(there(x, t), here(x, t), atol=2e-5)


@pytest.mark.parametrize("asked", [{"solver": "ddpm"}, {"solver": "ddpm", "variance": "learned_range"}, {"steps": 4}])
def test_hooks_of_a_classifier_work_on_device_arrays(tmp_path: Path, gpu: Any, asked: Any) -> None:
    """The gradient is found on the host; here it is a function of state and time that both can tell."""
    root = write_bundle(tmp_path / "bundle", labels=True, doubled_out="variance" in asked)
    device_bundles.build(root)

    def gradient(x: np.ndarray, t: float) -> np.ndarray:
        assert isinstance(x, np.ndarray)
        return np.tanh(0.5 - x) * (1 + t / 1000)

    kind = GuideMean if "solver" in asked else GuideNoise
    with load(root, "onnxruntime") as host, load(root, "tensorrt") as device:
        results = []
        for pipeline in (host, device):
            hooks = [kind(gradient, np.array([2.0, 0.5])), CorrectX0(lambda x0, t, level: 0.9 * x0)]
            results.append(pipeline.sample(2, **{"steps": 5, "label": 1, **asked}, hooks=hooks))
        plain = host.sample(2, **{"steps": 5, "label": 1, **asked})
    np.testing.assert_allclose(results[1], results[0], atol=5e-5 * max(1, float(np.abs(results[0]).max())))
    assert abs(results[0] - plain).max() > 0.01
