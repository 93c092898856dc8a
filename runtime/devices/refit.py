"""Other weights for a built engine, from an ONNX file or from safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import BackendError, OptionError
from dpmrt.runtime.devices.safetensors import RawTensor, read_safetensors

if TYPE_CHECKING:
    from dpmrt.runtime.devices.tensorrt_engine import Engine

_SHOWN = 4


def refit_engine(trt: Any, engine: Engine, weights: Path, *, graph: Path) -> None:
    """Replace all weights of an engine. Nothing may be enqueued on it meanwhile.

    `graph` is the ONNX file that the engine was built from, whose initialisers' names its weights bear.
    """
    suffix = weights.suffix.lower()
    if suffix not in (".onnx", ".safetensors") or not weights.is_file():
        raise OptionError(
            "these are no weights to refit an engine with",
            got=weights,
            expected="an .onnx or a .safetensors file",
            fix="refit='weights.safetensors'",
        )
    if not engine.engine.refittable:
        raise BackendError(
            "the engine cannot take other weights",
            got=f"{engine.manifest.key}, built without --refit",
            expected="an engine that was built with --refit or --stripWeights",
            fix="dpmrt build BUNDLE --refit",
        )
    refitter = trt.Refitter(engine.engine, engine.logger)
    if suffix == ".onnx":
        _from_onnx(trt, engine, refitter, weights)
    else:
        # TensorRT reads from these arrays until the refit is done.
        alive = _from_safetensors(trt, engine, refitter, weights)
    missing = [name for name in refitter.get_missing_weights() if name]
    if missing:
        raise _incomplete(weights, missing, graph)
    if not refitter.refit_cuda_engine():
        raise BackendError("TensorRT refuses the weights", got=engine.messages.take(), fix="load the bundle again")
    if suffix != ".onnx":
        del alive


def _from_onnx(trt: Any, engine: Engine, refitter: Any, weights: Path) -> None:
    parser = trt.OnnxParserRefitter(refitter, engine.logger)
    if parser.refit_from_file(str(weights)):
        return
    reasons = [str(parser.get_error(k).desc()) for k in range(parser.num_errors)]
    raise BackendError(
        "TensorRT finds other weights in the graph than the engine has",
        got="\n".join(reasons) or engine.messages.take(),
        expected=f"the weights of the same network in {weights}",
        fix="build an engine from that graph: dpmrt build BUNDLE",
    )


def _from_safetensors(trt: Any, engine: Engine, refitter: Any, weights: Path) -> list[NDArray[Any]]:
    tensors = read_safetensors(weights)
    alive: list[NDArray[Any]] = []
    unknown: list[str] = []
    for name in refitter.get_all_weights():
        tensor = _match(name, tensors)
        prototype = refitter.get_weights_prototype(name)
        if tensor is None or tensor.values.size != prototype.size:
            unknown.append(name)
            continue
        values = _cast(tensor, prototype.dtype.name)
        alive.append(values)
        given = trt.Weights(prototype.dtype, values.ctypes.data, values.size)
        if not refitter.set_named_weights(name, given):
            raise BackendError(f"TensorRT refuses the weights `{name}`", got=engine.messages.take())
    if unknown:
        raise _incomplete(weights, unknown, None)
    return alive


def _match(name: str, tensors: dict[str, RawTensor]) -> RawTensor | None:
    """Return the tensor of a name, or the only one whose name differs by what stands before it."""
    if name in tensors:
        return tensors[name]
    near = [key for key in tensors if name.endswith("." + key) or key.endswith("." + name)]
    return tensors[near[0]] if len(near) == 1 else None


def _cast(tensor: RawTensor, kind: str) -> NDArray[Any]:
    if kind == "BF16":
        if tensor.kind == "BF16":
            return np.ascontiguousarray(tensor.values)
        bits = np.ascontiguousarray(tensor.float32()).view(np.uint32)
        # to the nearest, ties to even
        return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    dtype = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32}.get(kind)
    if dtype is None:
        raise BackendError("the engine has weights of a type that dpmrt cannot fill", got=kind)
    values = tensor.values if np.dtype(dtype).kind == "i" else tensor.float32()
    return np.ascontiguousarray(values, dtype=dtype)


def _incomplete(weights: Path, names: list[str], graph: Path | None) -> BackendError:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return BackendError(
        "the weights do not cover the engine's",
        got=f"none in {weights.name}, or of another size, for {shown}",
        expected="every weight by the name that it has in the graph" + (f" {graph}" if graph else ""),
        fix="export the network again, and refit from its ONNX file: refit='BUNDLE/unet/model.onnx'",
    )
