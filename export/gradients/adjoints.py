"""Backward operators that ONNX has not, written with forward operators that it has; for the input's gradient only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._decomp import core_aten_decompositions
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

aten = torch.ops.aten


def decompositions() -> Mapping[Any, Callable[..., Any]]:
    """Return the table for `make_fx`: torch's own for backward operators, and those of this file."""
    table = {op: rule for op, rule in core_aten_decompositions().items() if "_backward" in str(op)}
    table[aten.convolution_backward.default] = _convolution
    for pool in (aten.avg_pool2d_backward, aten.avg_pool3d_backward):
        table[pool.default] = _average_pool
    for pool in (aten._adaptive_avg_pool2d_backward, aten._adaptive_avg_pool3d_backward):
        table[pool.default] = _adaptive_average_pool
    for pool in (aten.max_pool2d_with_indices_backward, aten.max_pool3d_with_indices_backward):
        table[pool.default] = _max_pool
    for rank in (1, 2, 3):
        for kind in ("upsample_nearest", "_upsample_nearest_exact"):
            table[getattr(aten, f"{kind}{rank}d_backward").default] = _nearest(getattr(aten, f"{kind}1d"))
    for kind in ("linear1d", "bilinear2d", "trilinear3d"):
        table[getattr(aten, f"upsample_{kind}_backward").default] = _linear
    return table


def _convolution(
    gradient: torch.Tensor,
    taken: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> Any:
    """Return the gradient of a convolution's input: the transposed convolution, and of that the plain one."""
    if any(output_mask[1:]):
        return NotImplemented
    rank = weight.ndim - 2
    stride, padding, dilation = (_each(value, rank) for value in (stride, padding, dilation))
    sizes = taken.shape[2:]
    if transposed:
        # An output padding of a stride or more, which a dilation allows, makes more than was there.
        found = aten.convolution(gradient, weight, None, stride, padding, dilation, False, [0] * rank, groups)
        for axis, size in enumerate(sizes, 2):
            found = found if found.shape[axis] == size else found.narrow(axis, 0, size)
        return found, None, None
    missing = [
        size - ((out - 1) * step - 2 * pad + spread * (kernel - 1) + 1)
        for size, out, step, pad, spread, kernel in zip(
            sizes, gradient.shape[2:], stride, padding, dilation, weight.shape[2:]
        )
    ]
    return aten.convolution(gradient, weight, None, stride, padding, dilation, True, missing, groups), None, None


def _average_pool(
    gradient: torch.Tensor,
    taken: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    if divisor_override is not None:
        # torch's exporter drops it from the forward operator.
        return NotImplemented
    rank = 3 if gradient.ndim == 5 else 2
    kernel, padding = _each(kernel, rank), _each(padding, rank)
    stride = _each(stride, rank) if stride else kernel
    # The average over a window is that along each axis in turn.
    average = torch.nn.functional.avg_pool1d
    maps = [
        _matrix(average, size, kernel[axis], stride[axis], padding[axis], ceil_mode, count_include_pad)
        for axis, size in enumerate(taken.shape[-rank:])
    ]
    return _pull_back(gradient, maps)


def _adaptive_average_pool(gradient: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    rank = 3 if gradient.ndim == 5 else 2
    sizes = zip(taken.shape[-rank:], gradient.shape[-rank:])
    return _pull_back(gradient, [_matrix(torch.nn.functional.adaptive_avg_pool1d, *pair) for pair in sizes])


def _nearest(forward: Any) -> Callable[..., torch.Tensor]:
    def backward(gradient: torch.Tensor, out: Sequence[int], taken: Sequence[int], *scales: Any) -> torch.Tensor:
        each = zip(taken[2:], out, scales or [None] * len(out))
        return _pull_back(gradient, [_matrix(forward, size, [to], scale) for size, to, scale in each])

    return backward


def _linear(
    gradient: torch.Tensor, out: Sequence[int], taken: Sequence[int], align_corners: bool, *scales: Any
) -> torch.Tensor:
    each = zip(taken[2:], out, scales or [None] * len(out))
    maps = [_matrix(aten.upsample_linear1d, size, [to], align_corners, scale) for size, to, scale in each]
    return _pull_back(gradient, maps)


def _max_pool(gradient: torch.Tensor, taken: torch.Tensor, *options: Any) -> torch.Tensor:
    """Return each output's gradient added where the largest input stood; its flat index is the last argument."""
    rank = 3 if gradient.ndim == 5 else 2
    size = math.prod(taken.shape[-rank:])
    nothing = taken.new_zeros((*taken.shape[:-rank], size))
    return nothing.scatter_add(-1, options[-1].flatten(-rank), gradient.flatten(-rank)).view(taken.shape)


def _matrix(forward: Callable[..., torch.Tensor], size: int, *options: Any) -> torch.Tensor:
    """Return what a linear map of one axis does to each basis vector, (size, out), as a constant of the graph."""
    with unset_fake_temporarily(), disable_proxy_modes_tracing(), torch.no_grad():
        return forward(torch.eye(size)[None], *options)[0].contiguous()


def _pull_back(gradient: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the gradient of the input of maps that act along the last axes, one each."""
    for axis, matrix in enumerate(maps, -len(maps)):
        gradient = (gradient.transpose(axis, -1) @ matrix.T).transpose(axis, -1)
    return gradient


def _each(value: Sequence[int], rank: int) -> list[int]:
    return [*value] * rank if len(value) == 1 else [*value]
