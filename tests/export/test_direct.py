"""Programs that torch.onnx is given whole: which they are, and that they give the graph they give taken apart."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnxscript import ir
from tiny_networks import conditional_unet, labelled_unet
from torch import Tensor, nn

from dpmrt.export import torch_onnx
from dpmrt.export.direct import leave_as_it_is, leave_whole
from dpmrt.export.simplifying import simplify
from dpmrt.export.translations import TRANSLATIONS


class Block(nn.Module):  # type: ignore[misc]
    """What transformers are made of, with what is only there while tracing: conversions, copies and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Linear(8, 24)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = x + torch.exp(-t.to(torch.float32))[:, None, None].to(x.dtype)
        q, k, v = self.mix(self.norm(x)).unsqueeze(1).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).contiguous()
        return self.drop(nn.functional.gelu(mixed)).flatten(1)


class Halves(nn.Module):  # type: ignore[misc]
    """Parts an axis that is open, which the optimiser cannot when the parting is taken apart; and subtracts from."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        first, second = torch.cat([x, 2 - x]).chunk(2)
        return first * second + torch.rsub(t, 3, alpha=2)[:, None, None]


class Written(Block):
    """Writes to what it was given a view of."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y = x * 1.0
        y[:, 0] += 1.0
        return super().forward(y, t)


class Summed(Block):
    """Has an operator that is not on the list."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(torch.logcumsumexp(x, 1), t)


class Dropping(Block):
    """Drops even while it is evaluated."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x, t), 0.5, training=True)


INPUTS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0.1, 0.5, 2.0])


def program_of(model: Any, inputs: tuple[Any, ...]) -> Any:
    axes = tuple({0: torch.export.Dim.AUTO} if x.ndim else {} for x in inputs)
    return torch.export.export(model.eval(), inputs, dynamic_shapes=axes, strict=False)


def whole(program: Any) -> bool:
    return "run_decompositions" in vars(program)


def graph_of(program: Any) -> ir.Model:
    options = {"opset_version": 20, "custom_translation_table": TRANSLATIONS, "optimize": False, "verbose": False}
    graph = torch.onnx.export(program, dynamo=True, **options).model
    simplify(graph, keeps=lambda node: False)
    return graph


def operators(graph: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph)


def test_a_whole_program_gives_the_graph_of_one_taken_apart(tmp_path: Path) -> None:
    left, apart = program_of(Block(), INPUTS), program_of(Block(), INPUTS)
    leave_whole(left)
    assert whole(left)
    graphs = [graph_of(left), graph_of(apart)]
    assert operators(graphs[0]) == operators(graphs[1])
    assert not operators(graphs[0]) & Counter(["Identity", "Dropout", "SequenceAt", "CastLike"])
    results = []
    for number, graph in enumerate(graphs):
        ir.save(graph, tmp_path / f"{number}.onnx")
        session = onnxruntime.InferenceSession(str(tmp_path / f"{number}.onnx"))
        feeds = {entry.name: value.numpy() for entry, value in zip(session.get_inputs(), INPUTS)}
        results.append(session.run(None, feeds)[0])
    np.testing.assert_array_equal(results[0], results[1])
    with torch.inference_mode():
        np.testing.assert_allclose(results[0], Block().eval()(*INPUTS).numpy(), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_an_open_axis_is_parted(batch: int, tmp_path: Path) -> None:
    program = program_of(Halves(), INPUTS)
    leave_whole(program)
    ir.save(graph_of(program), tmp_path / "halves.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "halves.onnx"))
    x, t = np.random.default_rng(0).standard_normal((batch, 5, 8), np.float32), np.arange(batch, dtype=np.float32)
    feeds = dict(zip((entry.name for entry in session.get_inputs()), (x, t)))
    np.testing.assert_allclose(session.run(None, feeds)[0], x * (2 - x) + (3 - 2 * t)[:, None, None], atol=1e-6)


@pytest.mark.parametrize("make", [Written, Summed, Dropping])
def test_other_programs_are_taken_apart(make: Callable[[], Any]) -> None:
    program = program_of(make(), INPUTS)
    before = str(program.graph)
    leave_whole(program)
    assert not whole(program)
    assert str(program.graph) == before


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (labelled_unet, (torch.randn(3, 1, 8, 8), torch.rand(3), torch.arange(3))),
        (conditional_unet, (torch.randn(3, 4, 8, 8), torch.rand(3), torch.randn(3, 7, 12))),
    ],
)
def test_the_networks_of_pictures_are_left_whole(make: Callable[[], Any], inputs: tuple[Any, ...]) -> None:
    program = program_of(make(), inputs)
    leave_whole(program)
    assert whole(program)


class Backward(nn.Module):  # type: ignore[misc]
    """What is left of a backward pass: operators that torch.onnx knows, not all of which the list above has."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.ops.aten.rsub.Scalar(x.sum((1,), keepdim=True).detach(), 1) * t[:, None, None]


class Bessel(nn.Module):  # type: ignore[misc]
    """Has an operator that torch.onnx does not know."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.special.bessel_j0(x) * t[:, None, None]


def test_a_program_of_known_operators_is_left_as_it_is() -> None:
    left, apart = program_of(Backward(), INPUTS), program_of(Backward(), INPUTS)
    leave_whole(left)
    assert not whole(left)
    leave_as_it_is(left)
    assert whole(left)
    assert operators(graph_of(left)) == operators(graph_of(apart))


@pytest.mark.parametrize("make", [Written, Bessel])
def test_one_that_writes_or_is_not_known_is_taken_apart(make: Callable[[], Any]) -> None:
    program = program_of(make(), INPUTS)
    leave_as_it_is(program)
    assert not whole(program)


def test_translations_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    apis: Any = torch.onnx._internal._lazy_import.onnxscript_apis
    read, asked = apis.get_torchlib_ops, []

    def counted() -> Any:
        asked.append(1)
        return read()

    module = sys.modules[apis._name]
    monkeypatch.setattr(module, "get_torchlib_ops", counted)
    torch_onnx._torchlib.cache_clear()
    for _ in range(2):
        model = torch_onnx.to_onnx(program_of(Backward(), INPUTS), ["x", "t"], ["y"], TRANSLATIONS).model
        assert [value.name for value in model.graph.inputs] == ["x", "t"]
    assert len(asked) == 1
    assert "get_torchlib_ops" not in vars(apis)
