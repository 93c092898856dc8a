"""What engine "auto" is: an engine that was built for the GPU that is here, ONNX Runtime on the GPU, or the CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dpmrt.engines import Network
from dpmrt.errors import BackendError, MissingExtraError
from dpmrt.runtime.gpu import Gpu, current_gpu, why_no_gpu

_LOG = logging.getLogger("dpmrt")


class Choice(NamedTuple):
    """An engine by its name, and why it was chosen."""

    engine: str
    why: str


def host_engine(network: Network) -> str:
    """Return the engine that runs a network on any processor."""
    return "emulated" if network.precision.kind == "bf16" else "onnxruntime"


def choose_engine(root: Path, network: Network, options: Iterable[str] = ()) -> Choice:
    """Return what "auto" stands for here.

    TensorRT if there is a GPU and an engine that was built for it and for this very graph; else ONNX Runtime's CUDA
    provider if that is installed; else the processor, which is also what options of the processor's engine ask for.
    """
    usual = host_engine(network)
    if "threads" in set(options):
        return Choice(usual, "threads are an option of the processor")
    gpu = current_gpu()
    if gpu is None:
        return Choice(usual, why_no_gpu() or "no GPU")
    if find_spec("cupy") is None:
        return Choice(usual, f"{gpu.name} is there, and CuPy is not installed")
    why = _no_tensorrt(root, network, gpu)
    if why is None:
        return Choice("tensorrt", f"an engine fits {gpu.name}")
    if network.precision.kind != "bf16" and _has_cuda_provider():
        return Choice("ort-cuda", f"{gpu.name}; {why}")
    return Choice(usual, f"{gpu.name} is there; {why}, and ONNX Runtime has no CUDA provider")


def log_choice(choice: Choice) -> None:
    """Say in one line what was chosen."""
    _LOG.info("engine auto: %s (%s)", choice.engine, choice.why)


def _no_tensorrt(root: Path, network: Network, gpu: Gpu) -> str | None:
    """Return why no engine of TensorRT can run the network here; None if one can."""
    from dpmrt.engines.built import engines_folder, find_engine, list_engines, source_hashes
    from dpmrt.runtime.backends.tensorrt import machine_of
    from dpmrt.runtime.tensorrt_library import installed_flavours, load_library

    folder = engines_folder(root)
    if not list_engines(folder):
        return "no TensorRT engine was built"
    why = "TensorRT is not installed"
    for flavour in installed_flavours():
        try:
            machine = machine_of(load_library(flavour), gpu)
            find_engine(folder, "unet", source_hashes(root, network), machine, bundle=root)
        except (BackendError, MissingExtraError) as error:
            why = error.what
            continue
        return None
    return why


def _has_cuda_provider() -> bool:
    if find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
