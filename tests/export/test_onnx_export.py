"""The graph computes what torch computes, at any batch and time, whatever lies in which file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dpmrt.errors import ExportError
from dpmrt.export.onnx_files import check_onnx, write_onnx
from dpmrt.export.sources import load_source
from dpmrt.export.torch_onnx import OPSET
from dpmrt.export.tracing import trace


@pytest.fixture(scope="module")
def labelled(pristine: Path, traced: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    return load_source(pristine), write_onnx(traced, tmp_path_factory.mktemp("labelled")).graph


@pytest.fixture(scope="module")
def conditioned(
    conditional: Path, traced_conditional: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    return load_source(conditional), write_onnx(traced_conditional, tmp_path_factory.mktemp("conditioned")).graph


def both(source: Any, graph: Path, **inputs: torch.Tensor) -> tuple[Any, Any]:
    with torch.inference_mode():
        expected = source.model(**inputs, return_dict=False)[0].numpy()
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    (got,) = session.run(["out_sample"], {name: tensor.numpy() for name, tensor in inputs.items()})
    return got, expected


@pytest.mark.parametrize("times", [[0.0], [999.0, 0.5], [1e-3, 123.456, 500.25], [7.0] * 70])
def test_labelled_network(labelled: tuple[Any, Path], times: list[float]) -> None:
    batch = len(times)
    got, expected = both(
        *labelled,
        sample=torch.randn(batch, 1, 8, 8),
        timestep=torch.tensor(times),
        class_labels=torch.arange(batch) % 11,
    )
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (1, 77), (5, 3)])
def test_conditional_network(conditioned: tuple[Any, Path], batch: int, tokens: int) -> None:
    got, expected = both(
        *conditioned,
        sample=torch.randn(batch, 4, 8, 8),
        timestep=torch.rand(batch) * 999,
        encoder_hidden_states=torch.randn(batch, tokens, 12),
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)


def tensors(values: Any) -> list[tuple[str, int, list[int | str]]]:
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


def test_names_types_and_axes(labelled: tuple[Any, Path], conditioned: tuple[Any, Path]) -> None:
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    first, second = (onnx.load(graph) for _, graph in (labelled, conditioned))
    assert tensors(first.graph.input) == [
        ("sample", float32, ["batch", 1, 8, 8]),
        ("timestep", float32, ["batch"]),
        ("class_labels", int64, ["batch"]),
    ]
    assert tensors(first.graph.output) == [("out_sample", float32, ["batch", 1, 8, 8])]
    assert tensors(second.graph.input)[2] == ("encoder_hidden_states", float32, ["batch", "tokens", 12])
    assert [(opset.domain, opset.version) for opset in first.opset_import] == [("", OPSET)]


def test_nothing_of_the_build_machine_is_in_the_graph(labelled: tuple[Any, Path]) -> None:
    content = labelled[1].read_bytes()
    for trace_of_it in (b"site-packages", b".py", str(Path.home()).encode() + b"/", b"stack_trace"):
        assert trace_of_it not in content


def test_external_data(labelled: tuple[Any, Path], traced: Any, tmp_path: Path) -> None:
    source, inside = labelled
    files = write_onnx(traced, tmp_path, external_above=1000)
    assert files.data == tmp_path / "model.onnx_data"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx_data"]
    assert files.data.stat().st_size > 50_000
    assert files.graph.stat().st_size < inside.stat().st_size - 50_000
    assert check_onnx(files.graph, source.predict, source.interface) <= 1e-5


def test_tracing_again_is_silent_and_gives_the_same_bytes(
    labelled: tuple[Any, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    source, graph = labelled
    again = trace(source.skeleton, source.interface, source.weights)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert write_onnx(again, tmp_path).graph.read_bytes() == graph.read_bytes()


def test_other_weights_are_noticed(labelled: tuple[Any, Path]) -> None:
    from tiny_networks import labelled_unet

    interface, other = labelled[0].interface, labelled_unet(seed=1).eval()
    with pytest.raises(ExportError, match=r"something else than torch(.|\n)*relative error of(.|\n)*batch 1"):
        check_onnx(labelled[1], lambda tensors: interface.call(other, tensors), interface)


def test_broken_graph_is_noticed(labelled: tuple[Any, Path], tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(labelled[1].read_bytes()[:1000])
    with pytest.raises(ExportError, match="not valid ONNX"):
        check_onnx(broken, labelled[0].predict, labelled[0].interface)


def test_a_network_that_cannot_be_traced(labelled: tuple[Any, Path]) -> None:
    class Branching(torch.nn.Module):  # type: ignore[misc]
        def forward(self, sample: Any, timestep: Any, class_labels: Any, return_dict: bool) -> tuple[Any]:
            return (sample if sample.sum().item() > 0 else -sample,)

    with pytest.raises(ExportError, match="torch cannot trace the network") as caught:
        trace(Branching(), labelled[0].interface, {})
    assert "data-dependent" in str(caught.value)
    assert "\x1b" not in str(caught.value)
