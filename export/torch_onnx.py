"""torch.onnx as it is called here: a traced program in, its graph out, not yet simplified."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.onnx._internal import _lazy_import
from torch.onnx._internal.exporter._registration import ONNXRegistry

OPSET = 20


def to_onnx(
    program: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    table: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Any:
    """Return what torch.onnx makes of a program; operators of `table` are translated by what stands there."""
    with _translations_once():
        return torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=dict(table or {}),
            input_names=list(inputs),
            output_names=list(outputs),
            optimize=False,
            verbose=False,
        )


def nothing_remembered() -> Any:
    """Return a context in which torch does not remember, while it traces, what operators gave.

    Where sizes are symbols, that costs more than to ask them again.
    """
    return torch._dynamo.config.patch(fake_tensor_cache_enabled=False)


def is_translated(operator: Any) -> bool:
    """Return whether torch.onnx has a translation of an operator, and does not take it apart."""
    return bool(_registry().is_registered(operator))


@functools.cache
def _registry() -> Any:
    with _translations_once():
        return ONNXRegistry.from_torchlib()


@functools.cache
def _torchlib() -> list[Any]:
    found: list[Any] = _lazy_import.onnxscript_apis.get_torchlib_ops()
    return found


@contextlib.contextmanager
def _translations_once() -> Iterator[None]:
    """Have torch.onnx use the translations that it found the first time: to read their sources takes seconds."""
    known = _torchlib()
    apis: Any = _lazy_import.onnxscript_apis
    apis.get_torchlib_ops = lambda: list(known)
    try:
        yield
    finally:
        vars(apis).pop("get_torchlib_ops", None)
