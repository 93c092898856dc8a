"""The torch-free runtime: load a bundle, pick a backend, sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmrt.runtime.bench.run import bench_bundle as bench_bundle
    from dpmrt.runtime.bundle import OpenBundle as OpenBundle
    from dpmrt.runtime.bundle import open_bundle as open_bundle
    from dpmrt.runtime.calibration.calibrate import calibrate as calibrate
    from dpmrt.runtime.editing.files import read_image as read_image
    from dpmrt.runtime.editing.files import read_mask as read_mask
    from dpmrt.runtime.editing.image_to_image import image_to_image as image_to_image
    from dpmrt.runtime.editing.inpainting import inpaint as inpaint
    from dpmrt.runtime.editing.interpolation import interpolate as interpolate
    from dpmrt.runtime.editing.inversion import invert as invert
    from dpmrt.runtime.editing.inversion import reconstruct as reconstruct
    from dpmrt.runtime.editing.recorder import Recorder as Recorder
    from dpmrt.runtime.editing.video import TemporalSmoothing as TemporalSmoothing
    from dpmrt.runtime.editing.video import consistent_noise as consistent_noise
    from dpmrt.runtime.guidance.asked import Guidance as Guidance
    from dpmrt.runtime.loading import load as load
    from dpmrt.runtime.pipeline import Pipeline as Pipeline

__all__ = [
    "Guidance",
    "OpenBundle",
    "Pipeline",
    "Recorder",
    "TemporalSmoothing",
    "bench_bundle",
    "calibrate",
    "consistent_noise",
    "image_to_image",
    "inpaint",
    "interpolate",
    "invert",
    "load",
    "open_bundle",
    "read_image",
    "read_mask",
    "reconstruct",
]

_HOMES = {
    "Guidance": "guidance.asked",
    "OpenBundle": "bundle",
    "open_bundle": "bundle",
    "Pipeline": "pipeline",
    "load": "loading",
    "bench_bundle": "bench.run",
    "Recorder": "editing.recorder",
    "TemporalSmoothing": "editing.video",
    "consistent_noise": "editing.video",
    "image_to_image": "editing.image_to_image",
    "inpaint": "editing.inpainting",
    "interpolate": "editing.interpolation",
    "invert": "editing.inversion",
    "reconstruct": "editing.inversion",
    "read_image": "editing.files",
    "read_mask": "editing.files",
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
