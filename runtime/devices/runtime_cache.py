"""What TensorRT-RTX compiles for the GPU at its first run, kept beside the engine for the next time."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from dpmrt.errors import OutputError
from dpmrt.files import atomic_write
from dpmrt.runtime.tensorrt_library import TensorRT

_LOG = logging.getLogger("dpmrt.tensorrt")


class RuntimeCache:
    """The compiled kernels of an engine, in `<key>.cache` beside its plan. TensorRT itself checks that they fit.

    TensorRT proper compiles at build time and has no such cache; `config` is then None.
    """

    def __init__(self, library: TensorRT, engine: Any, plan: Path) -> None:
        self._trt, self._engine = library.module, engine
        self._path = plan.with_suffix(".cache")
        self._rtx = library.flavour == "tensorrt_rtx" and hasattr(engine, "create_runtime_config")
        self._cache: Any = None
        self._loaded = b""

    def config(self, strategy: Any) -> Any:
        """Return how a context is made: kernels for its very shapes, compiled before its first run."""
        if not self._rtx:
            return None
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        # A context here has one set of shapes, and what a graph captures has to be the final kernels.
        config.dynamic_shapes_kernel_specialization_strategy = (
            self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._load()
        if not config.set_runtime_cache(self._cache):
            _LOG.warning("TensorRT-RTX takes no runtime cache; its kernels are compiled again in every process")
        return config

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except OSError:
            return
        if self._cache.deserialize(data):
            self._loaded = data
        else:
            _LOG.info("%s is for another machine, and is made anew", self._path.name)

    def save(self) -> None:
        """Write the cache if it holds more than was read."""
        if self._cache is None:
            return
        memory = self._cache.serialize()
        data = b"" if memory is None else bytes(memory)
        if not data or data == self._loaded:
            return
        try:
            with atomic_write(self._path) as stream:
                stream.write(data)
            self._loaded = data
        except OutputError as error:
            _LOG.info("compiled kernels are not kept: %s", error.what)
