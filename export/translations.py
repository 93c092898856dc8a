"""Operators whose translation to ONNX is wrong in torch.onnx, or is not there unless they are taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20 as op


def repeat_interleave(x: Any, repeats: Any, dim: int | None = None, output_size: Any = None) -> Any:
    """Return `x` with each slice along `dim` so many times in turn.

    torch.onnx repeats a first axis that is longer than 1 along the wrong one: it spreads frames over the batch.
    """
    rank = len(x.shape)
    if dim is None:
        x, dim, rank = op.Reshape(x, op.Constant(value_ints=[-1])), 0, 1
    axis = dim % rank
    one = op.Constant(value_ints=[1])
    times = op.Reshape(op.Cast(repeats, to=7), op.Constant(value_ints=[-1]))
    apart = op.Unsqueeze(x, op.Constant(value_ints=[axis + 1]))
    spread = op.Expand(apart, op.Concat(*[one] * (axis + 1), times, *[one] * (rank - axis - 1), axis=0))
    before = [op.Shape(x, start=0, end=axis)] if axis else []
    after = [op.Shape(x, start=axis + 1)] if axis + 1 < rank else []
    return op.Reshape(spread, op.Concat(*before, op.Constant(value_ints=[-1]), *after, axis=0))


def rsub(x: Any, other: float, alpha: float = 1) -> Any:
    """Return `other - alpha x`."""
    taken = x if alpha == 1 else op.Mul(x, op.CastLike(op.Constant(value_float=float(alpha)), x))
    return op.Sub(op.CastLike(op.Constant(value_float=float(other)), x), taken)


#: for torch.onnx.export
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.repeat_interleave.self_int: repeat_interleave,
    torch.ops.aten.rsub.Scalar: rsub,
}
