"""Other weights for a built engine, from an ONNX file or from the safetensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import Origin, Origins, read_origins
from dpmrt.errors import BackendError, OptionError
from dpmrt.runtime.devices.safetensors import INDEX, RawTensor, read_safetensors, read_shards

if TYPE_CHECKING:
    from dpmrt.runtime.devices.tensorrt_engine import Engine

_SHOWN = 4


def refit_engine(trt: Any, engine: Engine, weights: Path, *, graph: Path) -> None:
    """Replace the weights of an engine. Nothing may be enqueued on it meanwhile.

    `graph` is the ONNX file that the engine was built from, whose initialisers' names its weights bear.
    """
    _check_file(weights)
    if not engine.engine.refittable:
        raise BackendError(
            "the engine cannot take other weights",
            got=f"{engine.manifest.key}, built without --refit",
            expected="an engine that was built with --refit or --stripWeights",
            fix="dpmrt build BUNDLE --refit",
        )
    refitter = trt.Refitter(engine.engine, engine.logger)
    # TensorRT reads from these arrays until the refit is done.
    alive: list[NDArray[Any]] = []
    if weights.suffix.lower() == ".onnx":
        _from_onnx(trt, engine, refitter, weights)
    else:
        tensors = read_shards(weights) if weights.name.endswith(INDEX) else read_safetensors(weights)
        origins = read_origins(graph)
        if origins is None:
            named = {name: _match(name, tensors) for name in refitter.get_all_weights()}
        else:
            # What is no tensor of the checkpoint is the same for all weights, as tables of the time's sines are.
            _from_onnx(trt, engine, refitter, graph)
            named = _arranged(origins, tensors, refitter, weights)
        alive = _set(trt, engine, refitter, named, weights)
    missing = [name for name in refitter.get_missing_weights() if name]
    if missing:
        raise _incomplete(weights, missing, graph)
    if not refitter.refit_cuda_engine():
        raise BackendError("TensorRT refuses the weights", got=engine.messages.take(), fix="load the bundle again")
    alive.clear()


def _check_file(weights: Path) -> None:
    known = weights.suffix.lower() in (".onnx", ".safetensors") or weights.name.endswith(INDEX)
    if not known or not weights.is_file():
        raise OptionError(
            "these are no weights to refit an engine with",
            got=weights,
            expected=f"an .onnx file, a .safetensors file, or the {INDEX} beside its shards",
            fix="refit='weights.safetensors'",
        )


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


def _arranged(
    origins: Origins, tensors: Mapping[str, RawTensor], refitter: Any, weights: Path
) -> dict[str, RawTensor | None]:
    """Return each weight of the graph that comes from the checkpoint, laid out as the graph has it."""
    known = origins.weights
    lost = [*origins.merged, *sorted(known.keys() - set(refitter.get_all_weights()))]
    if lost or not known:
        raise BackendError(
            "some weights of the engine cannot be replaced, as they were worked into others",
            got=_some(lost) if lost else "no weight that is a tensor of the checkpoint as it was",
            expected=f"a place for each tensor of {weights.name}",
            fix="export the checkpoint and build an engine from it: dpmrt export, dpmrt build",
        )
    return {name: _laid_out(origin, tensors.get(origin.tensor)) for name, origin in known.items()}


def _laid_out(origin: Origin, tensor: RawTensor | None) -> RawTensor | None:
    if tensor is None:
        return None
    try:
        values = origin.apply(tensor.values)
    except ValueError:
        return None
    return RawTensor(tensor.kind, values.shape, values)


def _set(
    trt: Any, engine: Engine, refitter: Any, named: Mapping[str, RawTensor | None], weights: Path
) -> list[NDArray[Any]]:
    alive: list[NDArray[Any]] = []
    unknown: list[str] = []
    for name, tensor in named.items():
        prototype = refitter.get_weights_prototype(name)
        if tensor is None or tensor.values.size != prototype.size:
            unknown.append(name)
            continue
        values = _cast(tensor, prototype.dtype.name)
        if values.dtype == np.float16 and not np.isfinite(values).all():
            raise BackendError(
                f"`{name}` holds a number that the engine's precision cannot",
                got=f"{np.abs(tensor.float32()).max():g} in {weights.name}, and fp16 ends at 65504",
                fix="export these weights themselves, which keeps such numbers in fp32: dpmrt export",
            )
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
    dtype: Any = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32}.get(kind)
    if dtype is None:
        raise BackendError("the engine has weights of a type that dpmrt cannot fill", got=kind)
    values = tensor.values if np.dtype(dtype).kind == "i" else tensor.float32()
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=dtype)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _incomplete(weights: Path, names: list[str], graph: Path | None) -> BackendError:
    return BackendError(
        "the weights do not cover the engine's",
        got=f"none in {weights.name}, or of another size, for {_some(names)}",
        expected="every weight by the name that it has in the graph" + (f" {graph}" if graph else ""),
        fix="export the network again, and refit from its ONNX file: refit='BUNDLE/unet/model.onnx'",
    )
