"""What has to be seen of torch while a foreign scheduler runs: its draws of noise, and its float32."""

from __future__ import annotations

import contextlib
import copy
import sys
import types
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from dpmrt.errors import TraceError

Draw = Callable[[tuple[int, ...]], torch.Tensor]

#: random numbers that a plan has no place for
_OTHERS = (
    torch.rand,
    torch.rand_like,
    torch.randint,
    torch.randint_like,
    torch.randperm,
    torch.normal,
    torch.bernoulli,
    torch.multinomial,
    torch.poisson,
    torch.Tensor.uniform_,
    torch.Tensor.bernoulli_,
    torch.Tensor.exponential_,
)


class NormalDraws(TorchFunctionMode):  # type: ignore[misc]
    """Answers torch.randn, torch.randn_like and Tensor.normal_ by `draw(shape)`, wherever they are called from."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self._draw = draw

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer a draw, refuse other random numbers, let the rest pass."""
        kwargs = kwargs or {}
        if func is torch.randn:
            size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            return self._draw(tuple(size)).to(kwargs.get("dtype") or torch.get_default_dtype())
        if func is torch.randn_like:
            like = args[0] if args else kwargs["input"]
            return self._draw(tuple(like.shape)).to(kwargs.get("dtype") or like.dtype)
        if func is torch.Tensor.normal_:
            mean, std = _mean_and_std(*args[1:], **kwargs)
            return args[0].copy_(mean + std * self._draw(tuple(args[0].shape)))
        if func in _OTHERS:
            raise TraceError(
                "the scheduler draws random numbers that a plan has no place for",
                got=getattr(func, "__name__", func),
                expected="unit normal noise from torch.randn, torch.randn_like or diffusers' randn_tensor",
            )
        return func(*args, **kwargs)


def _mean_and_std(mean: float = 0.0, std: float = 1.0, *, generator: object = None) -> tuple[float, float]:
    return mean, std


class _Double(TorchFunctionMode):  # type: ignore[misc]
    """Reads float32 as float64 wherever a torch function is asked for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(_double(value) for value in args)
        return func(*args, **{name: _double(value) for name, value in (kwargs or {}).items()})


class _DoubleNumpy(types.ModuleType):
    """NumPy whose `float32` is float64."""

    float32 = np.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _double(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value is torch.float32 else value


@contextlib.contextmanager
def widened(scheduler: Any) -> Iterator[None]:
    """Let code of the scheduler's modules that asks for float32 have float64."""
    modules = [sys.modules[kind.__module__] for kind in type(scheduler).__mro__ if kind.__module__ in sys.modules]
    default = torch.get_default_dtype()
    with contextlib.ExitStack() as stack:
        double = _DoubleNumpy("numpy")
        for module in dict.fromkeys(modules):
            for name in [name for name, value in vars(module).items() if value is np]:
                stack.enter_context(unittest.mock.patch.object(module, name, double))
        stack.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float64)
        with _Double():
            yield


def widened_copy(scheduler: Any) -> Any:
    """Return a copy whose float32 tensors and arrays are float64: the same numbers, held wider."""
    found = copy.deepcopy(scheduler)
    for name, value in list(getattr(found, "__dict__", {}).items()):
        wide = _wide(value)
        if wide is not value:
            setattr(found, name, wide)
    return found


def _wide(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
        return value.double()
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        return value.astype(np.float64)
    if type(value) in (list, tuple) and any(isinstance(part, (torch.Tensor, np.ndarray)) for part in value):
        return type(value)(_wide(part) for part in value)
    return value
