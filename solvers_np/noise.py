"""Noise: torch's CPU generator reproduced without torch, NumPy's own, and recorded arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError

Shape = tuple[int, ...]


class NoiseSource(Protocol):
    """Gives standard normal noise, one array a call."""

    def normal(self, shape: Shape) -> NDArray[Any]:
        """Return the next draw."""
        ...


class TorchCPUNoise:
    """The stream of `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`, draw after draw.

    Equal to torch's float32 numbers up to the last digit of logarithm and cosine.
    """

    def __init__(self, seed: int = 0) -> None:
        self._bits = np.random.MT19937()
        self._bits._legacy_seeding(_seed(seed) & 0xFFFFFFFF)
        self._spare: float | None = None

    def normal(self, shape: Shape) -> NDArray[np.float32]:
        """Return the next draw, float32."""
        size = math.prod(shape)
        values = self._filled(size) if size >= 16 else self._single(size)
        return values.reshape(shape)

    def _words(self, count: int) -> NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def _uniform(self, count: int) -> NDArray[np.float32]:
        return (self._words(count) & np.uint64(0xFFFFFF)).astype(np.float32) * np.float32(2.0**-24)

    def _filled(self, size: int) -> NDArray[np.float32]:
        values = self._uniform(size)
        whole = size - size % 16
        values[:whole] = _box_muller(values[:whole])
        if size % 16:
            values[-16:] = _box_muller(self._uniform(16))
        return values

    def _single(self, size: int) -> NDArray[np.float32]:
        values = np.empty(size, np.float32)
        for index in range(size):
            if self._spare is not None:
                values[index], self._spare = self._spare, None
                continue
            angle, radius = self._double(), self._double()
            length = math.sqrt(-2.0 * math.log1p(-radius))
            self._spare = length * math.sin(2.0 * math.pi * angle)
            values[index] = length * math.cos(2.0 * math.pi * angle)
        return values

    def _double(self) -> float:
        high, low = (int(word) for word in self._words(2))
        return ((high << 32 | low) & ((1 << 53) - 1)) * 2.0**-53


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    blocks = uniform.reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - blocks[:, 0]))
    angle = np.float32(2 * math.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


class NumpyNoise:
    """NumPy's PCG64 stream in float32."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = np.random.Generator(np.random.PCG64(_seed(seed)))

    def normal(self, shape: Shape) -> NDArray[np.float32]:
        """Return the next draw, float32."""
        return self._generator.standard_normal(shape, dtype=np.float32)


class RecordedNoise:
    """Noise that was drawn before: an array whose first axis counts the draws."""

    def __init__(self, draws: NDArray[Any]) -> None:
        self._draws = draws
        self._next = 0

    def __len__(self) -> int:
        return len(self._draws) - self._next

    def normal(self, shape: Shape) -> NDArray[Any]:
        """Return the next recorded draw."""
        if self._next >= len(self._draws):
            raise ArrayError("the recorded noise is used up", got=f"{len(self._draws)} draws", expected="one more")
        draw: NDArray[Any] = self._draws[self._next]
        self._next += 1
        return draw


class _Called:
    def __init__(self, function: Callable[[Shape], NDArray[Any]]) -> None:
        self._function = function

    def normal(self, shape: Shape) -> NDArray[Any]:
        return np.asarray(self._function(shape))


STREAMS: dict[str, Callable[[int], NoiseSource]] = {"torch-cpu": TorchCPUNoise, "numpy": NumpyNoise}


def randn(shape: Shape, seed: int, like: str = "torch-cpu") -> NDArray[np.float32]:
    """Return standard normal float32 noise: the numbers of `torch.randn` on a CPU generator, or NumPy's.

    >>> randn((2, 2), seed=0).shape
    (2, 2)
    """
    if like not in STREAMS:
        raise OptionError("unknown noise generator", got=repr(like), expected="one of " + ", ".join(STREAMS))
    return STREAMS[like](seed).normal(tuple(shape))


def as_source(noise: Any, shape: Shape, draws: int) -> NoiseSource:
    """Make a source from what `run_plan` accepts, and check that it suffices.

    None is TorchCPUNoise(0); an array holds one draw after another; a callable is asked with the shape.
    """
    if noise is None:
        return TorchCPUNoise(0)
    if _is_source(noise):
        return noise
    if callable(noise):
        return _Called(noise)
    array = np.asarray(noise)
    if array.dtype.kind != "f":
        raise ArrayError("the recorded noise has the wrong dtype", got=array.dtype, expected="a floating-point dtype")
    if array.shape[1:] != shape or len(array) < draws:
        raise ArrayError(
            "the recorded noise does not fit the plan",
            got=f"shape {array.shape}",
            expected=f"{(draws, *shape)}: one draw for each row that adds noise",
        )
    if not np.isfinite(array[:draws]).all():
        raise ArrayError("the recorded noise holds NaN or infinity", expected="finite numbers")
    return RecordedNoise(array)


def _is_source(noise: Any) -> TypeGuard[NoiseSource]:
    return hasattr(noise, "normal")


def _seed(seed: int) -> int:
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed.__index__() < 1 << 64:
        raise OptionError("seed must be a whole number", got=repr(seed), expected="0 to 2**64 - 1")
    return seed.__index__()
