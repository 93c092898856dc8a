"""`weights.json`: what it says makes the weights of another checkpoint's export, number for number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnxscript import ir
from tiny_networks import conditional_unet

from dpmrt.engines import ORIGINS_NAME, Origin, Origins, Shaped, Turned, read_origins, write_origins
from dpmrt.errors import BundleError
from dpmrt.export.interfaces.spec import interface_of_spec, spec_of
from dpmrt.export.onnx_files import write_onnx
from dpmrt.export.precision import sensitive_nodes, to_half
from dpmrt.export.tracing import trace
from dpmrt.export.weights import origins
from dpmrt.runtime.devices.refit import _cast
from dpmrt.runtime.devices.safetensors import INDEX, RawTensor, read_safetensors, read_shards

_KINDS = {ir.DataType.FLOAT: "FLOAT", ir.DataType.FLOAT16: "HALF", ir.DataType.BFLOAT16: "BF16"}


@pytest.fixture(params=["labelled", "conditional"])
def network(
    request: pytest.FixtureRequest, traced: ir.Model, pristine: Path, traced_conditional: ir.Model, conditional: Path
) -> tuple[ir.Model, dict[str, RawTensor]]:
    """A traced graph, and the tensors of its checkpoint as the runtime reads them."""
    if request.param == "labelled":
        return traced, read_safetensors(pristine / "unet/diffusion_pytorch_model.safetensors")
    (index,) = (conditional / "unet").glob(f"*{INDEX}")
    return traced_conditional, read_shards(index)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_checkpoint_s_tensors_become_the_graph_s_weights(
    network: tuple[ir.Model, dict[str, RawTensor]], precision: str, tmp_path: Path
) -> None:
    graph, tensors = network
    made = graph.clone() if precision == "fp32" else to_half(graph, precision, sensitive_nodes(graph))
    path = write_onnx(made, tmp_path).graph
    write_origins(path, origins(graph))
    found = read_origins(path)
    assert found is not None
    assert found.merged == ()
    assert {origin.tensor for origin in found.weights.values()} == set(tensors)
    assert any(origin.steps for origin in found.weights.values())
    stored = {name: value.const_value for name, value in ir.load(path).graph.initializers.items()}
    for name, origin in found.weights.items():
        tensor = tensors[origin.tensor]
        laid_out = _cast(tensor._replace(values=origin.apply(tensor.values)), _KINDS[stored[name].dtype])
        assert laid_out.shape == tuple(stored[name].shape)
        assert laid_out.tobytes() == stored[name].tobytes()


def test_shards_are_read_by_their_index(conditional: Path) -> None:
    (index,) = (conditional / "unet").glob(f"*{INDEX}")
    tensors = read_shards(index)
    assert tensors.keys() == conditional_unet().state_dict().keys()
    assert (tensors["conv_in.weight"].values == conditional_unet().state_dict()["conv_in.weight"].numpy()).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no index of shards"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "names files elsewhere"),
        ('{"weight_map": {"a": "a.safetensors"}}', "the weights cannot be read"),
    ],
)
def test_an_index_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{INDEX}"
    path.write_text(text)
    with pytest.raises(BundleError, match=said):
        read_shards(path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    known = Origins({"b": Origin("x.b"), "a": Origin("x.a", (Turned((1, 0)), Shaped((2, 3, 1))))}, ("c",))
    write_origins(tmp_path / "model.onnx", known)
    assert read_origins(tmp_path / "model.onnx") == known
    assert read_origins(tmp_path / "elsewhere/model.onnx") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"format": "dpmrt-weights", "version": 2, "weights": {}}',
        '{"format": "dpmrt-weights", "version": 1, "weights": {"a": {"tensor": "a", "steps": [{"do": "exec"}]}}}',
    ],
)
def test_what_is_no_list_of_weights_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / ORIGINS_NAME).write_text(text)
    with pytest.raises(BundleError, match="is no list of weights") as caught:
        read_origins(tmp_path / "model.onnx")
    assert caught.value.fix == "export the network again: dpmrt export"


class _Normed(torch.nn.Module):
    """A batch normalisation that the exporter works into the convolution before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(1)
        self.leave = torch.nn.Conv2d(1, 1, 1)
        self.unused = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, when: torch.Tensor) -> torch.Tensor:
        return self.leave(self.norm(self.conv(x)).sin()) * when[:, None, None, None].cos()


def test_what_the_exporter_works_into_other_weights_is_listed() -> None:
    spec = {
        "inputs": {
            "sample": {"shape": ["batch", 1, 8, 8], "argument": "x"},
            "timestep": {"shape": ["batch"], "argument": "when"},
        },
        "output": {"shape": ["batch", 1, 8, 8]},
    }
    network = _Normed().eval().requires_grad_(False)
    graph = trace(network, interface_of_spec(spec_of(spec, "here"), "here"), network.state_dict())
    found = origins(graph)
    assert {origin.tensor for origin in found.weights.values()} == {"leave.weight", "leave.bias"}
    norm = {f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert set(found.merged) == {"conv.weight", "conv.bias", *norm}
