"""The noise of torch's CPU generator, without torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dpmrt.solvers_np.noise.seeds import check_seed


class TorchCPUNoise:
    """The stream of `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`, draw after draw.

    Equal to torch's float32 numbers up to the last digit of logarithm and cosine.
    """

    def __init__(self, seed: int = 0) -> None:
        self._bits = np.random.MT19937()
        self._bits._legacy_seeding(check_seed(seed) & 0xFFFFFFFF)
        self._spare: float | None = None

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
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
