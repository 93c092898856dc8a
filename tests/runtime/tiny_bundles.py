"""Bundles with a network of four nodes, whose output NumPy can work out: conv(x) + t / 2000 + table[label]."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dpmrt.engines import Defaults, Guidance, Manifest, Network, TensorSpec, record_file, write_manifest

Make = Callable[..., Path]

SIDE = 8
CLASSES = 3
NULL = 3
TABLE = np.array([0.3, -0.2, 0.1, 0.0], np.float32)
KERNEL = np.array([[0.0, 0.1, 0.0], [0.1, 0.4, 0.1], [0.0, 0.1, 0.0]], np.float32)
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
}


def reference(sample: np.ndarray, timestep: Any, class_labels: np.ndarray | None = None) -> np.ndarray:
    """Return what the network answers."""
    padded = np.pad(sample, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = sample.shape[2:]
    out = sum(KERNEL[i, j] * padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3))
    out = out + np.reshape(np.asarray(timestep, np.float32), (-1, 1, 1, 1)) * np.float32(0.0005)
    if class_labels is not None:
        out = out + TABLE[class_labels].reshape(-1, 1, 1, 1)
    return out.astype(np.float32)


def write_onnx(
    path: Path,
    *,
    labels: bool = False,
    time: str = "float32",
    scalar: bool = False,
    batch: str | int = "batch",
    size: str | int = SIDE,
    half: bool = False,
    names: dict[str, str] | None = None,
    doubled_out: bool = False,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Write the network in one of its variants, and return what it takes and gives."""
    called = {role: role for role in ("sample", "timestep", "class_labels", "out_sample")} | (names or {})
    kind = "float16" if half else "float32"
    inputs = [
        TensorSpec("sample", called["sample"], kind, (batch, 1, size, size)),
        TensorSpec("timestep", called["timestep"], time, () if scalar else (batch,)),
    ]
    if labels:
        inputs.append(TensorSpec("class_labels", called["class_labels"], "int64", (batch,)))
    outputs = [TensorSpec("out_sample", called["out_sample"], kind, (batch, 2 if doubled_out else 1, size, size))]
    weights = {
        "kernel": KERNEL.reshape(1, 1, 3, 3),
        "slope": np.float32(0.0005),
        "table": TABLE,
        "column": np.array([-1, 1, 1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", [called["sample"]], ["x_"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x_", "kernel"], ["conv"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", [called["timestep"]], ["t_"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["t_", "column"], ["t4"]),
        helper.make_node("Mul", ["t4", "slope"], ["shift"]),
        helper.make_node("Add", ["conv", "shift"], ["sum"]),
    ]
    last = "sum"
    if labels:
        nodes += [
            helper.make_node("Gather", ["table", called["class_labels"]], ["picked"]),
            helper.make_node("Reshape", ["picked", "column"], ["picked4"]),
            helper.make_node("Add", [last, "picked4"], ["labelled"]),
        ]
        last = "labelled"
    if doubled_out:
        nodes.append(helper.make_node("Concat", [last, last], ["both"], axis=1))
        last = "both"
    nodes.append(helper.make_node("Cast", [last], [called["out_sample"]], to=_element(kind)))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [_value(spec) for spec in inputs],
        [_value(spec) for spec in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return tuple(inputs), tuple(outputs)


def write_bundle(
    root: Path,
    *,
    manifest: bool = True,
    config: dict[str, Any] | None = None,
    scheduler: dict[str, Any] | None = None,
    guidance: bool | None = None,
    defaults: Defaults | None = None,
    **variant: Any,
) -> Path:
    """Write a bundle around the network; without a manifest, the folder is what optimum would have written."""
    inputs, outputs = write_onnx(root / "unet/model.onnx", **variant)
    labelled = bool(variant.get("labels"))
    unet = {"in_channels": 1, "sample_size": SIDE, "num_class_embeds": CLASSES + 1 if labelled else None}
    unet |= config or {}
    (root / "unet/config.json").write_text(json.dumps(unet))
    (root / "scheduler").mkdir()
    (root / "scheduler/scheduler_config.json").write_text(json.dumps({**SCHEDULER, **(scheduler or {})}))
    if manifest:
        files = ["unet/model.onnx", "unet/config.json", "scheduler/scheduler_config.json"]
        guided = labelled if guidance is None else guidance
        write_manifest(
            root,
            Manifest(
                format="dpmrt-bundle",
                version=1,
                name="tiny",
                scheduler="scheduler/scheduler_config.json",
                unet=Network("unet/model.onnx", inputs, outputs, config="unet/config.json"),
                prediction="epsilon",
                files={name: record_file(root / name) for name in files},
                guidance=Guidance("classifier_free", CLASSES, NULL, 2.0) if guided else None,
                defaults=defaults or Defaults(steps=5),
            ),
        )
    return root


def _element(dtype: str) -> int:
    return {"float32": 1, "float16": 10, "int64": 7, "int32": 6}[dtype]


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _element(spec.dtype), list(spec.shape))
