"""Layers that tracing takes for known: the same graph as without, and whatever is unlike others is left to torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnxscript import ir
from tiny_networks import conditional_unet
from torch import Tensor, nn

from dpmrt.engines import Axis
from dpmrt.errors import ExportError
from dpmrt.export import tracing
from dpmrt.export.interfaces import FreeAxis, Input, Interface, interface_of
from dpmrt.export.shortcuts import SHORTCUTS, Shortcuts
from dpmrt.export.tracing import trace

INTERFACE = Interface(
    inputs=(Input("sample", ("batch", 8, 6)), Input("timestep", ("batch",))),
    output=("batch", 8, 6),
    axes={"batch": FreeAxis(Axis(opt=1))},
)


def described(graph: ir.Model) -> list[Any]:
    """Return all of a graph but the names of values in it, which are numbered as torch goes along."""
    numbers: dict[Any, int] = {value: n for n, value in enumerate(graph.graph.inputs)}
    lines: list[Any] = [sorted(graph.graph.initializers)]
    for node in graph.graph:
        read = [None if v is None else v.name if v.is_initializer() else numbers[v] for v in node.inputs]
        attributes = [(a.name, str(a.value)) for a in node.attributes.values()]
        lines.append((node.name, node.op_type, read, attributes))
        numbers.update((value, len(numbers)) for value in node.outputs)
    return lines


def test_the_graph_is_the_one_that_torch_gives_without(monkeypatch: pytest.MonkeyPatch) -> None:
    network = conditional_unet()
    interface = interface_of({"_class_name": type(network).__name__, **network.config}).settle()
    short = described(trace(network, interface, network.state_dict()))
    monkeypatch.setattr(tracing, "Shortcuts", contextlib.nullcontext)
    assert short == described(trace(network, interface, network.state_dict()))


class Usual(nn.Module):  # type: ignore[misc]
    """Layers as they mostly are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.GroupNorm(2, 8), nn.Linear(6, 6), nn.LayerNorm(6), nn.Dropout(0.5), nn.Linear(6, 6, bias=False)
        )
        for tensor in self.parameters():
            nn.init.normal_(tensor)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.layers(sample) + timestep[:, None, None]


class Unusual(Usual):
    """Layers without weights, over two axes, and of a vector."""

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        x = F.group_norm(sample, 4)
        x = F.layer_norm(x, (8, 6)) + F.layer_norm(x, (6,), self.layers[2].weight)
        x = x * F.linear(x, self.layers[1].weight[0])[..., None]
        return super().forward(F.dropout(x, training=False), timestep)


@pytest.mark.parametrize("make", [Usual, Unusual])
def test_layers_give_what_they_give_in_torch(make: Callable[[], Any], tmp_path: Path) -> None:
    network = make()
    ir.save(trace(network, INTERFACE, network.state_dict()), tmp_path / "model.onnx")
    feeds = INTERFACE.examples(**INTERFACE.sizes(batch=3))
    with torch.inference_mode():
        expected = network.eval()(**feeds).numpy()
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (got,) = session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()})
    np.testing.assert_allclose(got, expected, atol=2e-5)


def taken(call: Callable[[], Tensor]) -> set[str]:
    """Return the shortcuts that are taken, on tensors that hold numbers."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, Shortcuts():
        got = call()
    torch.testing.assert_close(got, call(), rtol=0, atol=0)
    return {event.name for event in profile.events() if event.name.startswith("dpmrt::")}


X = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(2))
W, B = torch.randn(6, 6, generator=torch.Generator().manual_seed(3)), torch.randn(6)


def test_the_usual_layers_take_them_all() -> None:
    usual = Usual().eval()
    assert taken(lambda: usual(X, torch.zeros(2))) == {f"dpmrt::{op.name().split('::')[1]}" for op in SHORTCUTS}


CASES: dict[str, Callable[[], Tensor]] = {
    "a vector": lambda: F.linear(X, W[0]),
    "another type": lambda: F.linear(X.double(), W.double()).float(),
    "no weights": lambda: F.group_norm(X, 2),
    "two axes": lambda: F.group_norm(X[:, :, 0], 2, torch.ones(8), torch.ones(8)),
    "no bias": lambda: F.layer_norm(X, (6,), B),
    "drops": lambda: F.dropout(X * 0),
}


@pytest.mark.parametrize("case", [name for name in CASES if name != "another type"])
def test_other_layers_are_left_to_torch(case: str) -> None:
    assert taken(CASES[case]) == set()


def test_a_layer_is_left_to_torch_where_it_is_cast() -> None:
    def call() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.linear(X, W, B)

    assert taken(call) == set()
    assert taken(CASES["another type"]) == {"dpmrt::linear"}


class Misfit(Usual):
    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.layers[1](sample.transpose(1, 2))  # the line that fails


def test_a_layer_that_does_not_fit_is_told_as_torch_tells_it() -> None:
    network = Misfit()
    with pytest.raises(ExportError, match="torch cannot trace the network") as caught:
        trace(network, INTERFACE, network.state_dict())
    assert "the line that fails" in str(caught.value) or "shapes cannot be multiplied" in str(caught.value)


@pytest.mark.parametrize("op", SHORTCUTS)
def test_an_operator_keeps_what_torch_asks_of_it(op: Any) -> None:
    name = op.name().split("::")[1]
    norm = torch.ones(8), torch.zeros(8)
    arguments = {"linear": (X, W, B), "group_norm": (X, 2, *norm, 1e-5), "layer_norm": (X, [6], B, B, 1e-5)}[name]
    torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_faketensor"))
