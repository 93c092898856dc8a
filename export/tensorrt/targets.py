"""Where an engine is to run: `portable`, `device` or a list such as `sm89,sm120`."""

from __future__ import annotations

import re
from typing import Any

from dpmrt.engines.built import Target, this_platform
from dpmrt.engines.built.schema import OLDEST_PORTABLE
from dpmrt.errors import BackendError, OptionError
from dpmrt.runtime.gpu import Gpu, why_no_gpu
from dpmrt.runtime.tensorrt_library import TensorRT

_NAME = re.compile(r"sm_?([0-9]+)([0-9])")


def make_target(text: str | None, trt: TensorRT, gpu: Gpu | None) -> Target:
    """Return the target that a word stands for; None is `device` where there is a GPU, else `portable`.

    TensorRT itself times kernels on the GPU, so that it has no portable target and cannot build without one;
    TensorRT-RTX leaves that to the machine that runs the engine.
    """
    if trt.flavour == "tensorrt" and gpu is None:
        raise BackendError(
            f"{trt.library} builds only on the GPU that the engine is for",
            got=why_no_gpu() or "no GPU",
            expected="an NVIDIA GPU, or TensorRT-RTX, which builds without one",
            fix="pip install 'dpmrt[rtx]' and dpmrt build BUNDLE --flavour tensorrt_rtx",
        )
    word = text or _usual(trt, gpu)
    if word == "device":
        if gpu is None:
            raise BackendError(
                "there is no GPU to build for",
                got=why_no_gpu() or "no GPU",
                expected="an NVIDIA GPU",
                fix="--target portable, which runs on every GPU from compute capability 8.0",
            )
        return Target("device", this_platform(), gpu.name, gpu.compute_capability)
    if trt.flavour == "tensorrt":
        raise OptionError(
            f"{trt.library} has no portable targets",
            got=f"--target {word}",
            expected="--target device, with --hardwareCompatibilityLevel for more than this GPU",
            fix="--hardwareCompatibilityLevel=ampere+, or --flavour tensorrt_rtx",
        )
    known = capabilities(trt.module)
    if word == "portable":
        # Without a GPU the library makes an engine for all from 8.0; with one, it would make one for that.
        return Target("portable", this_platform(), capabilities=tuple(known) if gpu is not None else ())
    chosen = []
    for part in word.split(","):
        match = _NAME.fullmatch(part.strip().lower())
        name = f"{match[1]}.{match[2]}" if match else None
        if name not in known:
            raise OptionError(
                "--target names no compute capability that this TensorRT-RTX builds for",
                got=part,
                expected="portable, device, or of " + ", ".join("sm" + one.replace(".", "") for one in known),
                fix="--target sm89,sm120",
            )
        chosen.append(name)
    return Target("portable", this_platform(), capabilities=tuple(sorted(set(chosen), key=_numbers)))


def _usual(trt: TensorRT, gpu: Gpu | None) -> str:
    """Return the target of a build that names none: portable, where that runs here too.

    TensorRT-RTX compiles for the GPU when the engine is loaded, so that nothing is lost by building portably; but
    with a GPU in sight portable is a list, and the GPU may not be in it.
    """
    if trt.flavour == "tensorrt":
        return "device"
    return "portable" if gpu is None or gpu.compute_capability in capabilities(trt.module) else "device"


def capabilities(module: Any) -> dict[str, Any]:
    """Return the compute capabilities that a TensorRT-RTX builds for, with its own names for them."""
    found = {}
    for name, member in module.ComputeCapability.__members__.items():
        match = _NAME.fullmatch(name.lower())
        if match and _numbers(f"{match[1]}.{match[2]}") >= _numbers(OLDEST_PORTABLE):
            found[f"{match[1]}.{match[2]}"] = member
    return found


def _numbers(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
