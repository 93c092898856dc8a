"""Noise sources: seeded streams of torch and NumPy, Brownian paths, recorded arrays."""

from dpmrt.solvers_np.noise.brownian import BrownianPath
from dpmrt.solvers_np.noise.make import SOURCES, as_source, make_noise, randn
from dpmrt.solvers_np.noise.numpy_stream import NumpyNoise
from dpmrt.solvers_np.noise.source import IntervalNoise, NoiseSource, PerSample, RecordedNoise, asker
from dpmrt.solvers_np.noise.torch_cpu import TorchCPUNoise
from dpmrt.solvers_np.noise.torch_cuda import GPUS, TorchCUDANoise

__all__ = [
    "GPUS",
    "SOURCES",
    "BrownianPath",
    "IntervalNoise",
    "NoiseSource",
    "NumpyNoise",
    "PerSample",
    "RecordedNoise",
    "TorchCPUNoise",
    "TorchCUDANoise",
    "as_source",
    "asker",
    "make_noise",
    "randn",
]
