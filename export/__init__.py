"""Torch networks to bundles: reading, tracing to ONNX, checking; and bundles to TensorRT engines, without torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpmrt.export.bundle import export_bundle
    from dpmrt.export.certificate import verify
    from dpmrt.export.sources import Source, load_source
    from dpmrt.export.tensorrt.build import BuiltEngine, build_engine
    from dpmrt.export.trace import trace_scheduler

__all__ = ["BuiltEngine", "Source", "build_engine", "export_bundle", "load_source", "trace_scheduler", "verify"]

_HOMES = {
    "BuiltEngine": "dpmrt.export.tensorrt.build",
    "build_engine": "dpmrt.export.tensorrt.build",
    "Source": "dpmrt.export.sources",
    "export_bundle": "dpmrt.export.bundle",
    "load_source": "dpmrt.export.sources",
    "trace_scheduler": "dpmrt.export.trace",
    "verify": "dpmrt.export.certificate",
}


def __getattr__(name: str) -> object:
    # Resolved on first use, so that the command line can list the export commands without torch.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
