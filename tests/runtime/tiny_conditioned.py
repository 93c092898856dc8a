"""Bundles with a network of any conditions, whose output NumPy can work out.

It is 0.5 * state + t / 2000 + the mean of each condition, weighted by its place, and of the extra channels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import SCHEDULER

from dpmrt.engines import (
    NEGATIVE,
    Axis,
    Defaults,
    Guidance,
    Manifest,
    Network,
    Precision,
    TensorSpec,
    record_file,
    write_manifest,
)

Shape = tuple[int | str, ...]
ELEMENTS = {"float32": 1, "float16": 10, "int64": 7, "int32": 6}


def answer(
    state: np.ndarray, t: float, conditions: Mapping[str, np.ndarray] | None = None, axis: int = 1
) -> np.ndarray:
    """Return what the network answers; the order of the conditions is that of its inputs."""
    out = 0.5 * state + np.float32(t) * np.float32(0.0005)
    rest = dict(conditions or {})
    extra = rest.pop("extra_channels", None)
    for place, value in enumerate(rest.values(), start=1):
        means = np.asarray(value, np.float32).reshape(len(value), -1).mean(axis=1)
        out = out + np.float32(0.1 * place) * means.reshape(-1, *[1] * (state.ndim - 1))
    if extra is not None:
        out = out + extra.mean(axis=axis, keepdims=True)
    return np.asarray(out, np.float32)


def write_conditioned(
    root: Path,
    *,
    sample: Shape = ("batch", 4, "height", "width"),
    channels: int | None = None,
    given: int | None = None,
    axis: int = 1,
    conditions: Mapping[str, tuple[str, Shape]] | None = None,
    folded: bool = False,
    scale: Shape = ("batch",),
    axes: Mapping[str, Axis] | None = None,
    precision: Precision = Precision(),  # noqa: B008
    guidance: Guidance | None = None,
    manifest: bool = True,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a bundle whose state has `channels` of the sample's on `axis`; the output has `given`, or as many."""
    conditions = conditions or {}
    state = sample[axis] if channels is None else channels
    inputs = [
        TensorSpec("sample", "sample", "float32", sample),
        TensorSpec("timestep", "timestep", "float32", (sample[0],)),
        *(TensorSpec(role, role, dtype, shape) for role, (dtype, shape) in conditions.items()),  # type: ignore[arg-type]
    ]
    if folded:
        inputs += [
            TensorSpec(NEGATIVE + role, NEGATIVE + role, dtype, shape)  # type: ignore[arg-type]
            for role, (dtype, shape) in conditions.items()
            if role != "class_labels"
        ]
        inputs.append(TensorSpec("guidance_scale", "guidance_scale", "float32", scale))
    out_shape = list(sample)
    out_shape[axis] = state if given is None else given
    outputs = (TensorSpec("out_sample", "out_sample", "float32", tuple(out_shape)),)
    save_graph(root / "unet/model.onnx", tuple(inputs), outputs, conditions, axis, folded)
    (root / "unet/config.json").write_text(json.dumps(config or {}))
    (root / "scheduler").mkdir()
    (root / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER))
    network = Network(
        "unet/model.onnx",
        tuple(inputs),
        outputs,
        config="unet/config.json",
        axes=dict(axes or {}),
        channel_axis=axis,
        precision=precision,
    )
    if manifest:
        write_tiny_manifest(root, network, guidance)
    return root


def write_tiny_manifest(
    root: Path, network: Network, guidance: Guidance | None = None, classifier: Network | None = None
) -> None:
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
    write_manifest(
        root,
        Manifest(
            "dpmrt-bundle",
            2,
            "conditioned",
            network,
            "scheduler/scheduler_config.json",
            "epsilon",
            {name: record_file(root / name) for name in names if name != "dpmrt.json"},
            guidance=guidance,
            defaults=Defaults(steps=4),
            classifier=classifier,
        ),
    )


def save_graph(
    path: Path,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    conditions: Mapping[str, tuple[str, Shape]],
    axis: int,
    folded: bool,
) -> None:
    rank, taken, wanted = len(inputs[0].shape), inputs[0].shape[axis], outputs[0].shape[axis]
    column = np.array([-1, *[1] * (rank - 1)], np.int64)
    weights: dict[str, Any] = {"column": column, "slope": np.float32(0.0005), "half": np.float32(0.5)}
    node = helper.make_node
    state, extra, doubled = "sample", None, False
    nodes = []
    if isinstance(taken, int) and isinstance(wanted, int) and taken > wanted:
        weights["parts"] = np.array([wanted, taken - wanted], np.int64)
        nodes.append(node("Split", ["sample", "parts"], ["state", "extra"], axis=axis))
        nodes.append(node("ReduceMean", ["extra"], ["mean_extra"], axes=[axis], keepdims=1))
        state, extra = "state", "mean_extra"
    elif isinstance(taken, int) and isinstance(wanted, int):
        doubled = wanted > taken
    nodes += [
        node("Mul", [state, "half"], ["scaled"]),
        node("Reshape", ["timestep", "column"], ["time"]),
        node("Mul", ["time", "slope"], ["shift"]),
        node("Add", ["scaled", "shift"], ["base"]),
    ]
    if extra is not None:
        nodes.append(node("Add", ["base", extra], ["base_extra"]))

    def conditioned(prefix: str) -> str:
        last = "base" if extra is None else "base_extra"
        for place, (role, (_, shape)) in enumerate(conditions.items(), start=1):
            name = role if role == "class_labels" else prefix + role
            weights[f"w_{place}"] = np.float32(0.1 * place)
            tag = f"{prefix or 'given_'}{role}"
            nodes.append(node("Cast", [name], [f"{tag}_f"], to=TensorProto.FLOAT))
            mean = f"{tag}_f"
            if len(shape) > 1:
                nodes.append(node("ReduceMean", [mean], [f"{tag}_m"], axes=list(range(1, len(shape))), keepdims=0))
                mean = f"{tag}_m"
            nodes.append(node("Mul", [mean, f"w_{place}"], [f"{tag}_w"]))
            nodes.append(node("Reshape", [f"{tag}_w", "column"], [f"{tag}_c"]))
            nodes.append(node("Add", [last, f"{tag}_c"], [f"{tag}_sum"]))
            last = f"{tag}_sum"
        return last

    last = conditioned("")
    if folded:
        null = conditioned(NEGATIVE)
        nodes += [
            node("Reshape", ["guidance_scale", "column"], ["scale"]),
            node("Sub", [last, null], ["difference"]),
            node("Mul", ["difference", "scale"], ["guided"]),
            node("Add", [null, "guided"], ["both"]),
        ]
        last = "both"
    if doubled:
        nodes.append(node("Concat", [last, last], ["out_sample"], axis=axis))
    else:
        nodes.append(node("Identity", [last], ["out_sample"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(spec.name, ELEMENTS[spec.dtype], list(spec.shape)) for spec in inputs],
        [helper.make_tensor_value_info(spec.name, ELEMENTS[spec.dtype], list(spec.shape)) for spec in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
