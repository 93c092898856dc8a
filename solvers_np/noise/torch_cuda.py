"""The noise of torch's CUDA generator, without torch and without a GPU.

torch launches blocks of 256 threads, as many as the tensor needs but no more than fill the GPU once. Each thread is
a Philox stream of its own, and takes four normal numbers a turn; the first goes to the element of its own number,
each further one lies a whole launch away. So only a tensor larger than the launch depends on the GPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np.noise.philox import philox4x32
from dpmrt.solvers_np.noise.seeds import check_seed
from dpmrt.solvers_np.options import choose, whole

_BLOCK = 256
_LARGEST = 1 << 29  # a larger float32 tensor is drawn in parts, since its offsets exceed 32 bits
_TURN = np.float32(2.3283064e-10) * np.float32(6.2831855)  # curand's constants, multiplied as its compiler does


class Gpu(NamedTuple):
    """What of a GPU decides the numbers: how many multiprocessors, and how many threads each holds."""

    multiprocessors: int
    threads_per_multiprocessor: int


#: GPUs by name. Those that share both numbers draw the same noise.
GPUS: dict[str, Gpu] = {
    "A100": Gpu(108, 2048),
    "A10G": Gpu(80, 1536),
    "A40": Gpu(84, 1536),
    "H100 PCIe": Gpu(114, 2048),
    "H100 SXM": Gpu(132, 2048),
    "H200": Gpu(132, 2048),
    "L4": Gpu(58, 1536),
    "L40": Gpu(142, 1536),
    "L40S": Gpu(142, 1536),
    "RTX 2080 Ti": Gpu(68, 1024),
    "RTX 3060": Gpu(28, 1536),
    "RTX 3090": Gpu(82, 1536),
    "RTX 4090": Gpu(128, 1536),
    "RTX A4000": Gpu(48, 1536),
    "RTX A6000": Gpu(84, 1536),
    "T4": Gpu(40, 1024),
    "V100": Gpu(80, 2048),
}


class TorchCUDANoise:
    """The stream of `torch.randn(shape, device="cuda", generator=torch.Generator("cuda").manual_seed(seed))`.

    Draw after draw, float32; equal to torch's numbers but for the last digits of the GPU's sine and cosine.
    A tensor with more elements than the GPU holds threads is laid out by that number: name the GPU (see GPUS), or
    give what `torch.cuda.get_device_properties` calls `multi_processor_count` and
    `max_threads_per_multi_processor`. Without either it is an A100: 108 multiprocessors of 2048 threads.

    >>> noise = TorchCUDANoise(0, gpu="RTX 4090")
    >>> noise.normal((4,)).round(4).tolist() == np.float32([-0.9247, -0.4253, -2.6438, 0.1452]).tolist()
    True
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        gpu: str | None = None,
        multiprocessors: int | None = None,
        threads_per_multiprocessor: int | None = None,
    ) -> None:
        seed = check_seed(seed)
        self._key = (seed & 0xFFFFFFFF, seed >> 32)
        chosen = _gpu(gpu, multiprocessors, threads_per_multiprocessor)
        self._blocks = chosen.multiprocessors * (chosen.threads_per_multiprocessor // _BLOCK)
        self._turns = 0

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the next draw, float32."""
        size = math.prod(shape)
        if size > _LARGEST:
            raise ArrayError(
                "the draw is too large for CUDA's noise", got=f"{size} numbers", expected=f"at most {_LARGEST}"
            )
        values = np.empty(size, np.float32)
        if size:
            self._fill(values)
        return values.reshape(shape)

    def _fill(self, values: NDArray[np.float32]) -> None:
        launched = _BLOCK * min(self._blocks, -(-values.size // _BLOCK))
        threads = np.arange(launched, dtype=np.uint64)
        for begin in range(0, values.size, 4 * launched):
            words = philox4x32((self._turns & 0xFFFFFFFF, self._turns >> 32, threads, 0), self._key)
            self._turns += 1
            places = [values[begin + k * launched :][:launched] for k in range(4)]
            for k in (0, 2):
                _box_muller(words[k : k + 2], places[k], places[k + 1])


def _box_muller(words: list[NDArray[np.uint64]], sine: NDArray[np.float32], cosine: NDArray[np.float32]) -> None:
    """Fill what there is room for: often less than a whole launch, or nothing."""
    x, y = (word[: sine.size].astype(np.float32) for word in words)
    radius = np.sqrt(np.float32(-2) * np.log(x * np.float32(2.0**-32) + np.float32(2.0**-33)))
    # The GPU multiplies and adds with one rounding; float64 does so too, for factors of 24 bits.
    angle = (y.astype(np.float64) * float(_TURN) + float(_TURN) / 2).astype(np.float32)
    sine[...] = radius * np.sin(angle)
    cosine[...] = radius[: cosine.size] * np.cos(angle[: cosine.size])


def _gpu(name: str | None, multiprocessors: int | None, threads: int | None) -> Gpu:
    if multiprocessors is None and threads is None:
        return choose("GPU", "A100" if name is None else name, GPUS)
    if name is not None or multiprocessors is None or threads is None:
        raise OptionError(
            "a GPU is given by its name or by two numbers",
            got=f"gpu={name!r}, multiprocessors={multiprocessors!r}, threads_per_multiprocessor={threads!r}",
            expected="gpu alone, or multiprocessors and threads_per_multiprocessor",
        )
    return Gpu(
        whole("multiprocessors", multiprocessors, 1), whole("threads_per_multiprocessor", threads, _BLOCK, 1 << 16)
    )
