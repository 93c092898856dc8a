"""Layers that tracing does not look into, since the shape of what they give is known at once.

torch finds out what a normalisation or a linear layer gives by working through its formula with symbols for sizes,
which is more than half of what it takes to trace a UNet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from onnxscript.function_libs.torch_lib.ops.core import aten_layer_norm
from onnxscript.function_libs.torch_lib.ops.nn import aten_group_norm, aten_linear
from torch import Tensor
from torch.overrides import TorchFunctionMode


def _linear_of(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def _group_norm_of(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)


def _layer_norm_of(x: Tensor, sizes: Sequence[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, list(sizes), weight, bias, eps)


_linear: Any = torch.library.custom_op("dpmrt::linear", _linear_of, mutates_args=())
_group_norm: Any = torch.library.custom_op("dpmrt::group_norm", _group_norm_of, mutates_args=())
_layer_norm: Any = torch.library.custom_op("dpmrt::layer_norm", _layer_norm_of, mutates_args=())

# torch.empty_like would think about strides, for longer than all else takes.
_linear.register_fake(lambda x, weight, bias: x.new_empty((*x.shape[:-1], len(weight))))
_group_norm.register_fake(lambda x, *arguments: x.new_empty(x.shape))
_layer_norm.register_fake(lambda x, *arguments: x.new_empty(x.shape))

#: for torch.onnx.export: what it translates such layers by where they are not ours
SHORTCUTS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.dpmrt.linear.default: aten_linear,
    torch.ops.dpmrt.group_norm.default: aten_group_norm,
    torch.ops.dpmrt.layer_norm.default: aten_layer_norm,
}


class Shortcuts(TorchFunctionMode):  # type: ignore[misc]
    """While it is entered, layers that are as layers mostly are become operators that tracing does not look into."""

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or take the shortcut."""
        shortcut = _TAKEN.get(func)
        taken = shortcut(*args, **kwargs or {}) if shortcut else None
        return func(*args, **kwargs or {}) if taken is None else taken


def _take_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    fits = weight.dim() == 2 and _ends_in(input, weight.shape[1:]) and _alike(input, weight)
    if fits and (bias is None or (tuple(bias.shape) == (len(weight),) and _alike(input, bias))):
        return _linear(input, weight, bias)
    return None


def _take_group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Any:
    if weight is None or bias is None or input.dim() < 3 or not _alike(input, weight, bias):
        return None
    channels = input.shape[1]
    if isinstance(channels, int) and channels % num_groups == 0 and channels == len(weight) == len(bias):
        return _group_norm(input, num_groups, weight, bias, eps)
    return None


def _take_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    if weight is None or bias is None or not _alike(input, weight, bias):
        return None
    sizes = list(normalized_shape)
    fits = _ends_in(input, sizes) and list(weight.shape) == list(bias.shape) == sizes
    return _layer_norm(input, sizes, weight, bias, eps) if fits else None


def _take_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return None if training else input


_TAKEN: dict[Callable[..., Any], Callable[..., Any]] = {
    F.linear: _take_linear,
    F.group_norm: _take_group_norm,
    F.layer_norm: _take_layer_norm,
    F.dropout: _take_dropout,
}


def _ends_in(x: Tensor, sizes: Sequence[int]) -> bool:
    last = x.shape[-len(sizes) :]
    return all(isinstance(size, int) for size in last) and list(last) == list(sizes)


def _alike(*tensors: Tensor) -> bool:
    """Say whether tensors are of one type, which autocasting would change."""
    return len({tensor.dtype for tensor in tensors}) == 1 and not torch.is_autocast_enabled("cpu")
