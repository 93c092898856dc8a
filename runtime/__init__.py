"""The torch-free runtime: load a bundle, pick a backend, sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmrt.runtime.bench.run import bench_bundle as bench_bundle
    from dpmrt.runtime.bundle import OpenBundle as OpenBundle
    from dpmrt.runtime.bundle import open_bundle as open_bundle
    from dpmrt.runtime.calibration.calibrate import calibrate as calibrate
    from dpmrt.runtime.pipeline import Pipeline as Pipeline
    from dpmrt.runtime.pipeline import load as load

__all__ = ["OpenBundle", "Pipeline", "bench_bundle", "calibrate", "load", "open_bundle"]

_HOMES = {
    "OpenBundle": "bundle",
    "open_bundle": "bundle",
    "Pipeline": "pipeline",
    "load": "pipeline",
    "bench_bundle": "bench.run",
    "calibrate": "calibration.calibrate",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that the command line answers --help without NumPy.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
