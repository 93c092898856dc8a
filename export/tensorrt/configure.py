"""A request into TensorRT's builder configuration: the one place that knows its names for our words."""

from __future__ import annotations

from typing import Any

from dpmrt.engines.built import Flags, Request, Target
from dpmrt.export.tensorrt.flags import POOLS
from dpmrt.export.tensorrt.targets import capabilities
from dpmrt.runtime.tensorrt_library import TensorRT


def configure(trt: TensorRT, builder: Any, request: Request) -> Any:
    """Return a builder configuration that holds all of the request but the graph."""
    config = builder.create_builder_config()
    for profile in request.profiles:
        shapes = builder.create_optimization_profile()
        for name, size in profile.items():
            shapes.set_shape(name, size.min, size.opt, size.max)
        config.add_optimization_profile(shapes)
    _set_flags(trt.module, config, request.flags)
    _set_target(trt.module, config, request.target)
    return config


def _set_flags(module: Any, config: Any, flags: Flags) -> None:
    if flags.optimization_level is not None:
        config.builder_optimization_level = flags.optimization_level
    for pool, size in flags.memory_pools.items():
        config.set_memory_pool_limit(module.MemoryPoolType.__members__[POOLS[pool]], size)
    if not flags.tf32:
        config.clear_flag(module.BuilderFlag.TF32)
    if flags.refit:
        config.set_flag(module.BuilderFlag.REFIT)
    if flags.strip_weights:
        config.set_flag(module.BuilderFlag.STRIP_PLAN)
    if flags.weight_streaming:
        config.set_flag(module.BuilderFlag.WEIGHT_STREAMING)
    if flags.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if flags.hardware_compatibility != "none":
        level = module.HardwareCompatibilityLevel.__members__[flags.hardware_compatibility.upper()]
        config.hardware_compatibility_level = level


def _set_target(module: Any, config: Any, target: Target) -> None:
    if target.kind == "portable" and target.capabilities:
        known = capabilities(module)
        config.num_compute_capabilities = len(target.capabilities)
        for index, capability in enumerate(target.capabilities):
            config.set_compute_capability(known[capability], index)
