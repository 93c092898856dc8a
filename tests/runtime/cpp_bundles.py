"""A bundle so small that its files stand here, for manifests that are wrong in every way."""

from __future__ import annotations

from pathlib import Path


def _field(number: int, *values: bytes) -> bytes:
    """Encode one protobuf field of at most 127 bytes."""
    value = b"".join(values)
    return bytes([number << 3 | 2, len(value)]) + value


def onnx_model(*locations: str) -> bytes:
    """Encode a ModelProto with a weight in each of the files, the first of them inside a node's attribute."""
    tensors = [_field(13, _field(1, b"location"), _field(2, location.encode())) for location in locations]
    nodes = [_field(1, _field(5, _field(5, tensor))) for tensor in tensors[:1]]
    return b"\x08\x08" + _field(7, _field(2, b"tiny"), *nodes, *(_field(5, tensor) for tensor in tensors[1:]))


FILES = {
    "unet/model.onnx": onnx_model("model.onnx_data"),
    "unet/model.onnx_data": b"weights",
    "unet/config.json": b'{"num_class_embeds": 11, "in_channels": 1, "sample_size": 8}',
    "scheduler/scheduler_config.json": b'{"_class_name": "DDIMScheduler"}',
}


def write_folder(folder: Path, manifest: bytes) -> Path:
    """Write the bundle's files, and this for its manifest."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "dpmrt.json").write_bytes(manifest)
    return folder
