"""What cannot be exported is told by operator, module and line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dpmrt.engines import Axis
from dpmrt.errors import ExportError
from dpmrt.export.interfaces import FreeAxis, Input, Interface
from dpmrt.export.tracing import trace

INTERFACE = Interface(
    inputs=(Input("sample", ("batch", 3)), Input("timestep", ("batch",))),
    output=("batch", 3),
    axes={"batch": FreeAxis(Axis(opt=1))},
)


@torch.library.custom_op("dpmrt_tests::twist", mutates_args=())
def twist(x: Tensor) -> Tensor:
    return x.flip(-1)


@twist.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Twist(nn.Module):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        return twist(x) + 1  # the line of the operator


class Branch(nn.Module):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the line of the branch
            return x
        return -x


class Spectrum(nn.Module):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.linalg.eigvals(x.T @ x).real.sum()  # the line of the eigenvalues


class Chunk(nn.Module):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.cat([x, x.cumsum(0)]).chunk(2)  # the line of the chunk
        return first + second


class Fails(nn.Module):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        return x @ x.new_zeros(4, 3)  # the line that fails


class Network(nn.Module):  # type: ignore[misc]
    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.enter = nn.Linear(3, 3)
        self.blocks = nn.ModuleList([nn.Identity(), block()])

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        hidden = self.enter(sample) + timestep[:, None]
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


def refusal(block: Callable[[], nn.Module]) -> str:
    network = Network(block)
    with pytest.raises(ExportError) as caught:
        trace(network, INTERFACE, network.state_dict())
    return str(caught.value)


def line(comment: str) -> str:
    """Return FILE:LINE of the line of this file that ends in a comment."""
    source = inspect.getsource(inspect.getmodule(line) or line).splitlines()
    return f"{Path(__file__)}:{next(n for n, text in enumerate(source, 1) if text.endswith(f'# {comment}'))}"


def test_an_operator_that_onnx_has_not() -> None:
    text = refusal(Twist)
    assert text.startswith("an operator of the network has no counterpart in ONNX\n")
    assert "operator dpmrt_tests.twist.default\n" in text
    assert re.search(r"module blocks\.1 \(\S*test_unexportable\.Twist\)\n", text)
    assert f"at {line('the line of the operator')}, in forward: return twist(x) + 1" in text
    assert "expected: a network of operators that ONNX has at opset 20" in text


def test_an_operator_that_is_a_part_of_another() -> None:
    text = refusal(Spectrum)
    assert "operator aten.linalg_eig.default\n" in text
    assert f"at {line('the line of the eigenvalues')}, in forward: return x + torch" in text
    assert re.search(r"module blocks\.1 \(\S*test_unexportable\.Spectrum\)\n", text)
    assert "torchvision" not in text


def test_a_branch_on_data() -> None:
    text = refusal(Branch)
    assert text.startswith("torch cannot trace the network\n")
    assert f"at {line('the line of the branch')}, in forward: if x.sum() > 0:" in text


def test_an_operator_that_the_optimizer_stumbles_over() -> None:
    text = refusal(Chunk)
    assert f"at {line('the line of the chunk')}, in forward: first, second" in text
    assert re.search(r"module blocks\.1 \(\S*test_unexportable\.Chunk\)\n", text)


def test_a_line_that_fails() -> None:
    assert f"at {line('the line that fails')}, in forward: return x @ x.new_zeros(4, 3)" in refusal(Fails)


@pytest.mark.parametrize("block", [Twist, Branch, Chunk, Fails])
def test_nothing_else_is_said(block: Callable[[], nn.Module], capfd: pytest.CaptureFixture[str]) -> None:
    text = refusal(block)
    assert "\x1b" not in text
    assert not re.search(r"site-packages|torch/onnx|Traceback|GitHub|0x[0-9a-f]{6}", text)
    assert text.count(".py:") == 1
    assert len(text.splitlines()) < 12
    assert capfd.readouterr() == ("", "")
