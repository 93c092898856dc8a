"""The product of a vector with the Jacobian of the network of `tiny_bundles`, K^T v, as a graph beside it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import helper
from tiny_bundles import KERNEL, SIDE

from dpmrt.engines import Network, TensorSpec, read_manifest, record_file, write_manifest


def _matrix() -> np.ndarray:
    columns = []
    for picture in np.eye(SIDE * SIDE).reshape(-1, SIDE, SIDE):
        padded = np.pad(picture, 1)
        columns.append(sum(KERNEL[i, j] * padded[i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3)))
    return np.stack(columns, axis=-1).reshape(SIDE * SIDE, SIDE * SIDE)


#: the convolution as a matrix
KERNEL_MATRIX = _matrix()


def add_vjp(root: Path) -> Path:
    """Add the graph to a bundle: the network's own with one more convolution, whose kernel is symmetric."""
    manifest = read_manifest(root)
    model = onnx.load(root / manifest.unet.path)
    product = helper.make_node("Conv", ["cotangent", "kernel"], ["vjp"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    shape = ["batch", 1, SIDE, SIDE]
    model.graph.node.append(product)
    model.graph.input.append(helper.make_tensor_value_info("cotangent", 1, shape))
    model.graph.output.insert(0, helper.make_tensor_value_info("vjp", 1, shape))
    onnx.checker.check_model(model)
    (root / "vjp").mkdir()
    onnx.save(model, str(root / "vjp/model.onnx"))
    spec = TensorSpec("cotangent", "cotangent", "float32", ("batch", 1, SIDE, SIDE))
    network = Network(
        "vjp/model.onnx",
        (*manifest.unet.inputs, spec),
        (TensorSpec("vjp", "vjp", "float32", spec.shape), *manifest.unet.outputs),
    )
    files = {**manifest.files, network.path: record_file(root / network.path)}
    write_manifest(root, msgspec.structs.replace(manifest, version=3, vjp=network, files=files))
    return root
