"""Noise by name and seed, and the source for whatever `run_plan` accepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np.noise.brownian import BrownianPath
from dpmrt.solvers_np.noise.numpy_stream import NumpyNoise
from dpmrt.solvers_np.noise.source import CalledNoise, NoiseSource, PerSample, RecordedNoise, Shape
from dpmrt.solvers_np.noise.torch_cpu import TorchCPUNoise
from dpmrt.solvers_np.noise.torch_cuda import TorchCUDANoise
from dpmrt.solvers_np.options import call_with_options, choose, is_whole


def _torch_cpu(seed: int) -> NoiseSource:
    return TorchCPUNoise(seed)


def _torch_cuda(
    seed: int,
    *,
    gpu: str | None = None,
    multiprocessors: int | None = None,
    threads_per_multiprocessor: int | None = None,
) -> NoiseSource:
    return TorchCUDANoise(
        seed, gpu=gpu, multiprocessors=multiprocessors, threads_per_multiprocessor=threads_per_multiprocessor
    )


def _numpy(seed: int) -> NoiseSource:
    return NumpyNoise(seed)


def _brownian(seed: int) -> NoiseSource:
    return BrownianPath(seed)


SOURCES: dict[str, Callable[..., NoiseSource]] = {
    "torch-cpu": _torch_cpu,
    "torch-cuda": _torch_cuda,
    "numpy": _numpy,
    "brownian": _brownian,
}


def make_noise(like: str = "torch-cpu", seed: int | Sequence[int] = 0, **options: Any) -> NoiseSource:
    """Make a seeded source by name; a list of seeds gives each sample of the batch a stream of its own.

    "torch-cuda" takes gpu, or multiprocessors and threads_per_multiprocessor.

    >>> make_noise("torch-cpu", [3, 4]).normal((2, 8)).shape
    (2, 8)
    """
    make = choose("noise generator", like, SOURCES)
    if not isinstance(seed, (list, tuple, np.ndarray)) or np.ndim(seed) == 0:
        return call_with_options(like, make, options, seed)
    if not len(seed):
        raise OptionError("the list of seeds is empty", expected="one seed for each sample")
    return PerSample([call_with_options(like, make, options, each) for each in seed])


def randn(
    shape: Sequence[int], seed: int | Sequence[int], like: str = "torch-cpu", **options: Any
) -> NDArray[np.float32]:
    """Return standard normal float32 noise: the first draw of a source by name.

    "torch-cpu" gives the numbers of `torch.randn` on a CPU generator, "torch-cuda" those on a GPU.

    >>> randn((2, 2), seed=0).shape
    (2, 2)
    """
    if not isinstance(shape, Sequence) or not all(is_whole(axis) and axis >= 0 for axis in shape):
        raise OptionError("shape must be a row of whole numbers", got=repr(shape), expected="as (1, 4, 64, 64)")
    return make_noise(like, seed, **options).normal(tuple(shape))


def as_source(noise: Any, shape: Shape, draws: int) -> NoiseSource:
    """Make a source from what `run_plan` accepts, and check that it suffices.

    None is TorchCPUNoise(0); an array holds one draw after another; a callable is asked with the shape.
    """
    if noise is None:
        return TorchCPUNoise(0)
    if isinstance(noise, PerSample):
        noise.check(shape)
    if _is_source(noise) and not isinstance(noise, RecordedNoise):
        return noise
    if hasattr(noise, "between") and not _is_source(noise):
        raise ArrayError("the noise source has between() but no normal()", got=type(noise).__name__)
    if callable(noise):
        return CalledNoise(noise)
    recorded = noise if isinstance(noise, RecordedNoise) else RecordedNoise(noise)
    recorded.check(shape, draws)
    return recorded


def _is_source(noise: Any) -> TypeGuard[NoiseSource]:
    return hasattr(noise, "normal")
