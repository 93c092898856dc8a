"""One TensorRT engine in the device's memory: deserialised, its tensors, contexts for shapes."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmrt.engines.built import EngineManifest, choose_profile
from dpmrt.errors import BackendError
from dpmrt.runtime.backends.base import Tensor
from dpmrt.runtime.devices.cupy_device import free_memory, require_memory, size
from dpmrt.runtime.devices.runtime_cache import RuntimeCache
from dpmrt.runtime.tensorrt_library import TensorRT
from dpmrt.runtime.tensorrt_log import Messages, make_logger
from dpmrt.solvers_np.execution.device.place import Place, address

Shapes = Mapping[str, tuple[int, ...]]
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32"}
_SMALLER = "ask for a smaller batch or shape, or build an engine with --weightStreaming: dpmrt build BUNDLE"


class Engine:
    """A deserialised engine. Its contexts share one scratch memory, as they run one after another on one stream."""

    def __init__(
        self, library: TensorRT, manifest: EngineManifest, plan: Path, place: Place, *, budget: int | None = None
    ) -> None:
        self.manifest = manifest
        self._trt, self._place = library.module, place
        self.messages = Messages()
        self.logger = make_logger(self._trt, self.messages)
        self._runtime = self._begin()
        streams = manifest.request.flags.weight_streaming
        if budget is not None and not streams:
            raise BackendError(
                "the engine cannot stream its weights",
                got=f"a budget of {size(budget)}, and {manifest.key} built without",
                expected="an engine that was built with --weightStreaming",
                fix="dpmrt build BUNDLE --weightStreaming, or leave out weight_streaming_budget",
            )
        if not streams:
            require_memory(place, manifest.plan.bytes, "the engine's weights", _SMALLER)
        self.engine = self._deserialise(plan)
        if streams:
            self._set_budget(budget)
        self._cache = RuntimeCache(library, self.engine, plan)
        self._scratch: Any = None
        names = [self.engine.get_tensor_name(k) for k in range(self.engine.num_io_tensors)]
        modes = {name: self.engine.get_tensor_mode(name).name for name in names}
        self.inputs = tuple(self._tensor(name) for name in names if modes[name] == "INPUT")
        self.outputs = tuple(self._tensor(name) for name in names if modes[name] == "OUTPUT")

    def _begin(self) -> Any:
        try:
            return self._trt.Runtime(self.logger)
        except TypeError as error:
            # So pybind11 says that the library gave nothing; why, only the library's log tells.
            raise BackendError(
                "TensorRT cannot be started",
                got=self.messages.take(),
                expected="a driver as new as the CUDA that TensorRT was made for",
                fix="update the driver, or install the TensorRT for its CUDA; `dpmrt doctor` shows both",
            ) from error

    def _deserialise(self, plan: Path) -> Any:
        with plan.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise BackendError(
                "TensorRT refuses the engine",
                got=self.messages.take(),
                expected=f"an engine for {self.manifest.request.library} in {plan}",
                fix="build it again: dpmrt build BUNDLE",
            )
        return engine

    def _set_budget(self, budget: int | None) -> None:
        """Say how many bytes of weights stay on the device; the rest is copied there when it is needed."""
        total = int(self.engine.streamable_weights_size)
        if budget is None:
            budget = int(self.engine.get_weight_streaming_automatic_budget())
        if not 0 <= budget <= total:
            raise BackendError(
                "weight_streaming_budget is out of range",
                got=size(budget) if budget >= 0 else budget,
                expected=f"0 to {total}, the bytes of weights that can be streamed",
                fix="leave it out, and TensorRT chooses",
            )
        self.engine.weight_streaming_budget_v2 = budget
        if int(self.engine.weight_streaming_budget_v2) > budget:
            raise BackendError("TensorRT refuses the weight streaming budget", got=self.messages.take())

    def _tensor(self, name: str) -> Tensor:
        kind = self.engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise BackendError(f"`{name}` has a type that dpmrt cannot bind", got=kind, expected=", ".join(_DTYPES))
        declared = {spec.name: spec.shape for spec in (*self.manifest.inputs, *self.manifest.outputs)}.get(name, ())
        shape = tuple(int(axis) for axis in self.engine.get_tensor_shape(name))
        known = declared if len(declared) == len(shape) else ("?",) * len(shape)
        return Tensor(name, _DTYPES[kind], tuple(str(k) if n < 0 else n for n, k in zip(shape, known)))

    def covers(self, shapes: Shapes) -> tuple[int, float] | None:
        """Return the profile that suits the shapes best, and how far they are from its optimum; None if none does."""
        return choose_profile(self.manifest, shapes)

    def context(self, profile: int, shapes: Shapes) -> Any:
        """Return an execution context for shapes, with the memory that it works in."""
        needed = int(self.engine.get_device_memory_size_for_profile_v2(profile))
        if self._scratch is None or self._scratch.nbytes < needed:
            require_memory(self._place, needed, "the engine's working memory", _SMALLER)
            # An older scratch stays alive by the contexts that use it.
            self._scratch = self._place.zeros(max(1, needed), "uint8")
        context = self._create_context()
        if context is None:
            free = size(free_memory(self._place))
            raise BackendError("TensorRT makes no context", got=f"{self.messages.take()} ({free} free)", fix=_SMALLER)
        context.set_device_memory(address(self._scratch), self._scratch.nbytes)
        stream = self._place.stream
        self._check(context.set_optimization_profile_async(profile, stream.ptr), f"profile {profile}")
        for name, shape in shapes.items():
            if any(int(axis) < 0 for axis in self.engine.get_tensor_shape(name)):
                self._check(context.set_input_shape(name, shape), f"{name}{list(shape)}")
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise BackendError(
                "TensorRT finds the inputs' shapes at odds",
                got=f"{self.messages.take()} ({error})",
                expected="shapes that the graph takes together",
            ) from error
        if missing:
            raise BackendError("the engine's inputs are not settled", got=", ".join(missing), expected="every shape")
        return context, self._scratch

    def _create_context(self) -> Any:
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        config = self._cache.config(strategy)
        if config is not None:
            return self.engine.create_execution_context(config)
        return self.engine.create_execution_context(strategy)

    def _check(self, done: bool, what: str) -> None:
        if not done:
            raise BackendError(
                "TensorRT refuses what it is asked for",
                got=f"{what}: {self.messages.take()}",
                expected="shapes within the engine's profile",
                fix="build an engine that covers them: dpmrt build BUNDLE --minShapes … --optShapes … --maxShapes …",
            )

    def close(self) -> None:
        """Keep what was compiled for the next time."""
        self._cache.save()
