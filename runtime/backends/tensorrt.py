"""TensorRT and TensorRT-RTX: engines that `dpmrt build` made, on device buffers and one stream."""

from __future__ import annotations

import functools
import logging
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dpmrt.engines import Network
from dpmrt.engines.built import (
    FLAVOURS,
    EngineManifest,
    Flavour,
    Machine,
    engines_folder,
    find_engine,
    source_hashes,
    this_platform,
)
from dpmrt.errors import BackendError, DpmrtError
from dpmrt.runtime.backends.base import Call, Tensor, check_buffers
from dpmrt.runtime.devices.cupy_device import open_place, require_gpu
from dpmrt.runtime.devices.refit import refit_engine
from dpmrt.runtime.devices.tensorrt_engine import Engine, Shapes
from dpmrt.runtime.gpu import Gpu
from dpmrt.runtime.tensorrt_library import TensorRT, installed_flavours, load_library
from dpmrt.solvers_np.execution.device.place import Place, address

_LOG = logging.getLogger("dpmrt")
#: one axis twice as large, or half as large, as what the engine was tuned for
_FAR = 1.0


class FarFromOptimum(UserWarning):
    """An engine runs shapes that it was not tuned for."""


class TensorRTBackend:
    """The engines of one network. More than one may be loaded: each request gets the one that covers its shapes.

    `weight_streaming_budget` is how many bytes of weights stay on the device; `refit` names weights (.onnx or
    .safetensors) to put in place of those that the engine was built with.
    """

    capturable = True

    def __init__(
        self,
        root: Path,
        network: Network,
        *,
        flavour: Flavour | None = None,
        folder: str | Path | None = None,
        weight_streaming_budget: int | None = None,
        refit: str | Path | None = None,
        place: Place | None = None,
    ) -> None:
        name = "tensorrt-rtx" if flavour == "tensorrt_rtx" else "tensorrt"
        self._gpu = require_gpu(name)
        self._root, self._network = root, network
        self._folder = engines_folder(root, folder)
        self._source = source_hashes(root, network)
        self._budget = weight_streaming_budget
        self._weights: Path | None = None if refit is None else Path(refit)
        self._library, manifest, plan = self._find(flavour)
        self.place = open_place(name) if place is None else place
        self.generation = 0
        self._engines: dict[str, Engine] = {}
        self._contexts: weakref.WeakValueDictionary[tuple[object, ...], _Bound] = weakref.WeakValueDictionary()
        self._closed = False
        first = self._load(manifest, plan)
        self.inputs: tuple[Tensor, ...] = first.inputs
        self.outputs: tuple[Tensor, ...] = first.outputs

    @property
    def manifests(self) -> tuple[EngineManifest, ...]:
        """Return the sidecars of the engines that are loaded."""
        return tuple(engine.manifest for engine in self._engines.values())

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Call:
        """Fix the buffers of a call once, which are device arrays; the returned function enqueues it."""
        self._check_open()
        check_buffers((self.inputs, self.outputs), inputs, outputs)
        shapes = {name: tuple(int(n) for n in array.shape) for name, array in inputs.items()}
        with self.place.work():
            bound = self._bound(shapes, inputs)
            call = bound.call(outputs)

        def run(_alive: object = (bound, dict(inputs), dict(outputs))) -> None:
            self._check_open()
            call()

        return run

    def refit(self, weights: str | Path) -> None:
        """Put other weights of the same network into the loaded engines, without building them again.

        `weights` is an ONNX file, whose initialisers have the names of the bundle's graph, or the safetensors of a
        checkpoint, of a sharded one the index. Either all weights are replaced, or the backend is closed with an
        error.
        """
        self._check_open()
        path = Path(weights)
        with self.place.work():
            self.place.stream.synchronize()
            for engine in self._engines.values():
                self._refit(engine, path)
        self._weights = path
        self.generation += 1

    def close(self) -> None:
        """Let go of the engines."""
        if self._closed:
            return
        self._closed = True
        self.place.settle()
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the backend is closed", fix="load the bundle again")

    def _find(self, flavour: Flavour | None, shapes: Shapes | None = None) -> tuple[TensorRT, EngineManifest, Path]:
        """Return the library and the engine to use: of any flavour that has a fitting engine, unless one is named."""
        wanted: list[Flavour | None] = [flavour]
        if flavour is None:
            wanted = [one for one in FLAVOURS if one in installed_flavours()] or [None]
        refused: DpmrtError | None = None
        for one in wanted:
            try:
                library = load_library(one)
                machine = machine_of(library, self._gpu)
                found = find_engine(self._folder, "unet", self._source, machine, shapes, bundle=self._root)
            except BackendError as error:
                refused = refused or error
                continue
            return library, *found
        assert refused is not None
        raise refused

    def _load(self, manifest: EngineManifest, plan: Path) -> Engine:
        if manifest.key not in self._engines:
            with self.place.work():
                engine = Engine(self._library, manifest, plan, self.place, budget=self._budget)
                weights = self._weights
                if weights is None and manifest.request.flags.strip_weights:
                    # A stripped plan holds no weights: those of the graph it was built from are the ones it lacks.
                    weights = self._root / self._network.path
                if weights is not None:
                    self._refit(engine, weights)
                self._engines[manifest.key] = engine
            _LOG.info("engine %s: %s, %s", manifest.key, manifest.request.library, manifest.request.target)
        return self._engines[manifest.key]

    def _refit(self, engine: Engine, weights: Path) -> None:
        try:
            refit_engine(self._library.module, engine, weights, graph=self._root / self._network.path)
        except BaseException:
            # Part of the weights may be the new ones already, and nobody could tell.
            self._closed = True
            self._engines.clear()
            raise

    def _bound(self, shapes: Shapes, inputs: Mapping[str, Any]) -> _Bound:
        key = tuple((name, shape, address(inputs[name])) for name, shape in sorted(shapes.items()))
        bound = self._contexts.get(key)
        if bound is None:
            engine, profile, distance = self._choose(shapes)
            if distance >= _FAR:
                self._warn(engine, profile, shapes)
            bound = _Bound(self, engine, engine.context(profile, shapes), inputs)
            self._contexts[key] = bound
        return bound

    def _choose(self, shapes: Shapes) -> tuple[Engine, int, float]:
        """Return engine and profile for shapes: of those that are loaded, or else another of the folder."""
        best: tuple[float, Engine, int] | None = None
        for engine in self._engines.values():
            chosen = engine.covers(shapes)
            if chosen is not None and (best is None or chosen[1] < best[0]):
                best = chosen[1], engine, chosen[0]
        if best is None or best[0] >= _FAR:
            try:
                _, manifest, plan = self._find(self._library.flavour, shapes)
            except BackendError:
                if best is None:
                    raise
            else:
                if best is None or manifest.key not in self._engines:
                    engine = self._load(manifest, plan)
                    chosen = engine.covers(shapes)
                    if chosen is not None and (best is None or chosen[1] < best[0]):
                        best = chosen[1], engine, chosen[0]
        assert best is not None
        return best[1], best[2], best[0]

    def _warn(self, engine: Engine, profile: int, shapes: Shapes) -> None:
        ranges = engine.manifest.request.profiles[profile]
        asked = {name: shape for name, shape in shapes.items() if name in ranges}
        flags = " ".join(
            f"--{kind}Shapes=" + ",".join(f"{name}:{_show(shape)}" for name, shape in of.items())
            for kind, of in (("min", asked), ("opt", asked), ("max", asked))
        )
        tuned = ", ".join(f"{name}:{_show(ranges[name].opt)}" for name in asked)
        here = ", ".join(f"{name}:{_show(shape)}" for name, shape in asked.items())
        warnings.warn(
            f"the engine {engine.manifest.key} was tuned for {tuned}, and runs {here}; an engine for these shapes: "
            f"dpmrt build {self._root} {flags}",
            FarFromOptimum,
            stacklevel=2,
        )


class _Bound:
    """A context with its inputs bound, for as many sets of outputs as there are slots."""

    def __init__(self, owner: TensorRTBackend, engine: Engine, made: Any, inputs: Mapping[str, Any]) -> None:
        self._engine, self._stream, self._place = engine, owner.place.stream, owner.place
        self._context, self._scratch = made
        self._inputs = dict(inputs)
        self._current: object = None
        self._spare: dict[str, Any] = {}
        for name, array in inputs.items():
            self._address(name, array)

    def call(self, outputs: Mapping[str, Any]) -> Callable[[], None]:
        """Return what enqueues the engine into these outputs; one that is not wanted goes to a buffer of its own."""
        targets = {spec.name: outputs.get(spec.name) for spec in self._engine.outputs}
        for spec in self._engine.outputs:
            shape = tuple(int(axis) for axis in self._context.get_tensor_shape(spec.name))
            wanted = targets[spec.name]
            if wanted is None:
                if spec.name not in self._spare:
                    self._spare[spec.name] = self._place.zeros(shape, spec.dtype)
                targets[spec.name] = self._spare[spec.name]
            elif tuple(wanted.shape) != shape:
                raise BackendError(
                    f"the engine gives another shape for `{spec.name}`", got=shape, expected=tuple(wanted.shape)
                )
        return functools.partial(self._enqueue, targets)

    def _enqueue(self, targets: Mapping[str, Any]) -> None:
        if self._current is not targets:
            for name, array in targets.items():
                self._address(name, array)
            self._current = targets
        if not self._context.execute_async_v3(self._stream.ptr):
            raise BackendError("the network failed in TensorRT", got=self._engine.messages.take())

    def _address(self, name: str, array: Any) -> None:
        if not self._context.set_tensor_address(name, address(array)):
            raise BackendError(f"TensorRT refuses the buffer of `{name}`", got=self._engine.messages.take())


def machine_of(library: TensorRT | None, gpu: Gpu | None) -> Machine:
    """Return what decides here which engines load."""
    found = None if library is None else library.library
    if gpu is None:
        return Machine(found, None, None, this_platform())
    return Machine(found, gpu.name, gpu.compute_capability, this_platform())


def _show(shape: tuple[int, ...]) -> str:
    return "x".join(str(axis) for axis in shape)
