"""What can run a network: a name for each backend, and the function that opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dpmrt.engines import Network, TensorSpec
from dpmrt.errors import BackendError, OptionError
from dpmrt.runtime.backends.base import Backend, Tensor, check_buffers
from dpmrt.runtime.backends.choice import choose_engine, host_engine, log_choice
from dpmrt.runtime.backends.function import FunctionBackend

if TYPE_CHECKING:
    from dpmrt.engines.built import Flavour
    from dpmrt.runtime.backends.ort_gpu import Provider

__all__ = [
    "BACKENDS",
    "Backend",
    "FunctionBackend",
    "Tensor",
    "check_buffers",
    "choose_engine",
    "host_engine",
    "open_backend",
]

Opener: TypeAlias = Callable[..., Backend]


def _open_ort(root: Path, network: Network, *, threads: int | None = None) -> Backend:
    if network.precision.kind == "bf16":
        raise BackendError(
            "ONNX Runtime on the CPU cannot compute in bfloat16",
            got=f"{network.path} in bf16",
            expected="a graph in fp32 or fp16",
            fix="engine='emulated', which rounds as bfloat16 does and computes in float32",
        )
    from dpmrt.runtime.backends.ort import OrtBackend

    return OrtBackend(root / network.path, threads=threads)


def _open_emulated(root: Path, network: Network, *, threads: int | None = None) -> Backend:
    if network.precision.emulated is None:
        kind = network.precision.kind
        again = "export the network again, with --precision bf16 or fp32: dpmrt export SOURCE -o BUNDLE"
        raise BackendError(
            "the bundle has no graph that emulates its precision",
            got=f"{network.path} in {kind}, and no `precision.emulated`",
            expected="a second graph, for a precision that the processor lacks",
            fix=again if kind == "bf16" else "engine='onnxruntime', which runs the graph itself",
        )
    from dpmrt.runtime.backends.ort import OrtBackend

    return OrtBackend(root / network.precision.emulated, threads=threads)


def _open_function(root: Path, network: Network, *, function: Callable[..., Any] | None = None) -> Backend:
    if function is None:
        raise OptionError(
            "the engine `numpy` runs a Python function and was given none",
            expected="function=...",
            fix="load(bundle, engine='numpy', function=f), or engine='onnxruntime'",
        )
    return FunctionBackend(function, _tensors(network.inputs), _tensors(network.outputs))


def _tensors(specs: tuple[TensorSpec, ...]) -> list[Tensor]:
    return [Tensor(spec.name, spec.dtype, spec.shape) for spec in specs]


def _tensorrt(flavour: Flavour | None) -> Opener:
    """Return what opens an engine of TensorRT: of one flavour, or of any that has an engine that fits."""

    def open_engine(
        root: Path,
        network: Network,
        *,
        folder: str | Path | None = None,
        refit: str | Path | None = None,
        weight_streaming_budget: int | None = None,
    ) -> Backend:
        from dpmrt.runtime.backends.tensorrt import TensorRTBackend

        budget = weight_streaming_budget
        return TensorRTBackend(
            root, network, flavour=flavour, folder=folder, refit=refit, weight_streaming_budget=budget
        )

    return open_engine


def _ort_gpu(provider: Provider) -> Opener:
    """Return what opens a network with one of ONNX Runtime's GPU providers."""

    def open_session(root: Path, network: Network, *, folder: str | Path | None = None) -> Backend:
        from dpmrt.runtime.backends.ort_gpu import OrtGpuBackend

        return OrtGpuBackend(root, network, provider, folder=folder)

    return open_session


BACKENDS: dict[str, Opener] = {
    "onnxruntime": _open_ort,
    "emulated": _open_emulated,
    "numpy": _open_function,
    "tensorrt": _tensorrt(None),
    "tensorrt-rtx": _tensorrt("tensorrt_rtx"),
    "ort-cuda": _ort_gpu("cuda"),
    "ort-tensorrt": _ort_gpu("tensorrt"),
    "ort-tensorrt-rtx": _ort_gpu("tensorrt-rtx"),
}


def plain_engines() -> list[str]:
    """Return the engines that need nothing but their name."""
    return ["auto", *sorted(name for name, opener in BACKENDS.items() if opener is not _open_function)]


def engine_options(engine: str) -> frozenset[str]:
    """Return the options that an engine takes.

    >>> sorted(engine_options("onnxruntime"))
    ['threads']
    """
    return frozenset(BACKENDS[engine].__kwdefaults__ or {})


def open_backend(engine: str, root: Path, network: Network, **options: Any) -> Backend:
    """Open `network` of the bundle in `root` with the backend of this name; "auto" is the best that is here.

    `choose_engine` says what that is; it is the processor unless there is a GPU and something built for it.
    """
    name = engine
    if engine == "auto":
        choice = choose_engine(root, network, options)
        log_choice(choice)
        name = choice.engine
    opener = BACKENDS.get(name)
    if opener is None:
        known = ", ".join(["auto", *sorted(BACKENDS)])
        raise OptionError("unknown engine", got=repr(engine), expected=known, fix="engine='auto'")
    known_options = set(opener.__kwdefaults__ or {})
    if unknown := sorted(set(options) - known_options):
        raise OptionError(
            f"the engine `{name}` has no such option",
            got=", ".join(unknown),
            expected=", ".join(sorted(known_options)) or "no options",
        )
    return opener(root, network, **options)
