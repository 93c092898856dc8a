"""A TensorRT for tests: a plan is an ONNX file that ONNX Runtime runs on the addresses that were bound.

It follows the rules of the real one that a caller can break: profiles and their shapes, scratch memory of the caller,
addresses for every tensor, refitting only what may be refitted. Its names are those of TensorRT 10.3 and 11.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.machinery
import sys
import types
from collections.abc import Callable
from typing import Any

import fake_cupy
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

MAGIC = b"fake plan\n"
SCRATCH = 4096
state: dict[str, Any] = {}


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.made = True

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    BF16 = 7
    INT64 = 8


_KINDS = {1: DataType.FLOAT, 10: DataType.HALF, 7: DataType.INT64, 6: DataType.INT32}
_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT64: np.int64,
    DataType.INT32: np.int32,
}


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        assert logger.made
        self._logger = logger
        if state.get("old_driver"):
            logger.log(
                Severity.ERROR, "CUDA initialization failure with error: 35. Please check your CUDA installation"
            )
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Engine | None:
        data = bytes(memoryview(serialized_engine))
        if not data.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization assertion")
            return None
        return Engine(self._logger, data[len(MAGIC) :])


class Engine:
    def __init__(self, logger: ILogger, model: bytes) -> None:
        settings = state["settings"]
        self.logger, self.model = logger, onnx.load_model_from_string(model)
        self.profiles: list[dict[str, tuple[Any, Any, Any]]] = settings["profiles"]
        self.refittable = settings["refit"]
        self.streams = settings["streams"]
        self._budget = 0
        self.session: Any = None
        self.compile()
        graph = self.model.graph
        self._tensors = {v.name: v for v in (*graph.input, *graph.output)}
        self._modes = {v.name: TensorIOMode.INPUT for v in graph.input} | {
            v.name: TensorIOMode.OUTPUT for v in graph.output
        }
        self.num_io_tensors = len(self._tensors)
        self.num_optimization_profiles = len(self.profiles)
        self.streamable_weights_size = 1000 if self.streams else 0

    def compile(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        data = self.model.SerializeToString()
        self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, value: int) -> None:
        assert self.streams
        state["budget"] = self._budget = value

    def get_weight_streaming_automatic_budget(self) -> int:
        return 600

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._modes[name]

    def get_tensor_dtype(self, name: str) -> DataType:
        return _KINDS[self._tensors[name].type.tensor_type.elem_type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        dims = self._tensors[name].type.tensor_type.shape.dim
        return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return int(state["scratch"]) * (1 + profile_index)

    def create_execution_context(self, strategy: Any = ExecutionContextAllocationStrategy.STATIC) -> Context:
        if isinstance(strategy, RuntimeConfig):
            state["config"] = strategy
            strategy = strategy.strategy
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return Context(self)


class RtxEngine(Engine):
    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()


class RuntimeCache:
    def __init__(self) -> None:
        self.blob = b""

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"compiled"):
            return False
        self.blob = blob
        return True

    def serialize(self) -> bytes:
        return self.blob


class RuntimeConfig:
    def __init__(self) -> None:
        self.strategy: Any = ExecutionContextAllocationStrategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
        self.cache: RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._warm = False
        state["contexts"] = state.get("contexts", 0) + 1

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        self._scratch = (memory, size)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle in fake_cupy.Stream.known
        if not 0 <= profile_index < len(self._engine.profiles):
            return self._refuse(f"profile {profile_index} is out of range")
        assert self._engine.get_device_memory_size_for_profile_v2(profile_index) <= self._scratch[1]
        self._profile, self._shapes, self._warm = profile_index, {}, False
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.profiles[self._profile].get(name, (shape, shape, shape))
        if not all(a <= n <= b for a, n, b in zip(low, shape, high)):
            return self._refuse(f"setInputShape: {name} {shape} does not satisfy any optimization profiles")
        self._shapes[name], self._warm = tuple(shape), False
        return True

    def infer_shapes(self) -> list[str]:
        if state.get("at_odds"):
            self._refuse("inferShapes: Error Code 7: Internal Error (broadcast dimensions must be conformable)")
            raise RuntimeError("Failed to infer shapes")
        dynamic = [n for n, mode in self._engine._modes.items() if mode is TensorIOMode.INPUT]
        return [n for n in dynamic if -1 in self._engine.get_tensor_shape(n) and n not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        declared = self._engine.get_tensor_shape(name)
        if self._engine.get_tensor_mode(name) is TensorIOMode.INPUT:
            return self._shapes.get(name, declared)
        named: dict[str, int] = {}
        for value in self._engine.model.graph.input:
            for dim, size in zip(value.type.tensor_type.shape.dim, self.get_tensor_shape(value.name)):
                named[dim.dim_param] = size
        dims = self._engine._tensors[name].type.tensor_type.shape.dim
        return tuple(d.dim_value if d.HasField("dim_value") else named[d.dim_param] for d in dims)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory % 256:
            return self._refuse(f"setTensorAddress: {name} is not aligned")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        state["runs"] = state.get("runs", 0) + 1
        if state.get("lose_at") == state["runs"]:
            fake_cupy.device["lost"] = True
        if state.get("fail_at") == state["runs"] or fake_cupy.device["lost"]:
            return self._refuse("enqueueV3: Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
        if missing := [name for name in self._engine._tensors if name not in self._addresses]:
            return self._refuse(f"enqueueV3: no address for {missing[0]}")
        addresses = dict(self._addresses)
        stream = fake_cupy.Stream.known[stream_handle]
        if stream.is_capturing() and not self._warm:
            stream.invalidated = True
            return self._refuse("enqueueV3: the first call after shapes were set allocates, which a capture forbids")
        self._warm = True
        stream.enqueue(lambda: self._compute(addresses))
        return True

    def _compute(self, addresses: dict[str, int]) -> None:
        feeds, targets = {}, {}
        for name, address in addresses.items():
            shape, kind = self.get_tensor_shape(name), _NUMPY[self._engine.get_tensor_dtype(name)]
            array = _at(address, shape, kind)
            (feeds if self._engine.get_tensor_mode(name) is TensorIOMode.INPUT else targets)[name] = array
        for (_, target), value in zip(targets.items(), self._engine.session.run(list(targets), feeds)):
            target[...] = value

    def _refuse(self, text: str) -> bool:
        self._engine.logger.log(Severity.ERROR, f"IExecutionContext::{text}")
        return False


class Weights:
    def __init__(self, type: DataType, ptr: int = 0, count: int = 0) -> None:
        self.dtype, self.ptr, self.size = type, ptr, count


class Refitter:
    def __init__(self, engine: Engine, logger: ILogger) -> None:
        self._engine, self._logger = engine, logger
        self._given: dict[str, np.ndarray[Any, Any]] = {}

    def _own(self) -> dict[str, Any]:
        hidden = state.get("fixed_weights", ())
        named = self._engine.model.graph.initializer
        return {i.name: i for i in named if i.data_type in (1, 10) and i.name not in hidden}

    def get_all_weights(self) -> list[str]:
        return list(self._own())

    def get_missing_weights(self) -> list[str]:
        return [name for name in self._own() if name not in self._given] if self._given else []

    def get_weights_prototype(self, name: str) -> Weights:
        own = self._own()[name]
        return Weights(_KINDS[own.data_type], 0, int(np.prod(own.dims)))

    def set_named_weights(self, name: str, weights: Weights) -> bool:
        own = self._own()[name]
        assert weights.dtype is _KINDS[own.data_type]
        assert weights.size == int(np.prod(own.dims))
        self._given[name] = _at(weights.ptr, tuple(own.dims), _NUMPY[weights.dtype]).copy()
        return True

    def refit_cuda_engine(self) -> bool:
        if state.get("refuse_refit"):
            self._logger.log(Severity.ERROR, "refitCudaEngine failed")
            return False
        for name, values in self._given.items():
            self._own()[name].CopyFrom(numpy_helper.from_array(values, name))
        self._engine.compile()
        return True


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self._refitter = refitter
        self._errors: list[str] = []

    def refit_from_file(self, model: str) -> bool:
        given = {i.name: numpy_helper.to_array(i) for i in onnx.load(model).graph.initializer}
        for name in self._refitter.get_all_weights():
            if name not in given:
                self._errors.append(f"no weights {name}")
                return False
            self._refitter._given[name] = given[name]
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return types.SimpleNamespace(desc=lambda: self._errors[index])


def _at(address: int, shape: tuple[int, ...], kind: Any) -> np.ndarray[Any, Any]:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), kind).reshape(shape)


def install(monkeypatch: Any, flavour: str = "tensorrt", version: str = "10.3.0") -> dict[str, Any]:
    """Make `import tensorrt` (or tensorrt_rtx) find this module; returns what its plans are made with."""
    state.clear()
    state.update(settings={"profiles": [{}], "refit": False, "streams": False}, scratch=SCRATCH)
    module = types.ModuleType(flavour)
    module.__spec__ = importlib.machinery.ModuleSpec(flavour, None, origin=f"/nowhere/{flavour}/__init__.py")
    names: dict[str, Callable[..., Any] | Any] = {
        "__version__": version,
        "Builder": object,
        "ILogger": ILogger,
        "DataType": DataType,
        "Runtime": Runtime if flavour == "tensorrt" else RtxRuntime,
        "TensorIOMode": TensorIOMode,
        "ExecutionContextAllocationStrategy": ExecutionContextAllocationStrategy,
        "Weights": Weights,
        "Refitter": Refitter,
        "OnnxParserRefitter": OnnxParserRefitter,
    }
    if flavour == "tensorrt_rtx":
        names["DynamicShapesKernelSpecializationStrategy"] = DynamicShapesKernelSpecializationStrategy
    for name, value in names.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, flavour, module)
    return state


class RtxRuntime(Runtime):
    def deserialize_cuda_engine(self, serialized_engine: Any) -> Engine | None:
        made = super().deserialize_cuda_engine(serialized_engine)
        if made is not None:
            made.__class__ = RtxEngine
        return made
