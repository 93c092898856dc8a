"""Polygraphy's runners for the two sides of a comparison; both take one array a role and give `out_sample`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpmrt.engines import Network, TensorSpec
from dpmrt.errors import MissingExtraError
from dpmrt.export.sources import Source
from dpmrt.runtime.backends import Backend
from dpmrt.runtime.backends.base import run_once

try:
    from polygraphy.backend.base import BaseRunner
    from polygraphy.common import TensorMetadata
except ModuleNotFoundError as error:
    raise MissingExtraError(
        "verifying needs a package that is not installed", got=error, fix="pip install 'dpmrt[export]'"
    ) from None

Feed = Mapping[str, Any]


class _Runner(BaseRunner):  # type: ignore[misc]
    def __init__(self, name: str, inputs: tuple[TensorSpec, ...]) -> None:
        super().__init__(name=name)
        self._inputs = inputs

    def get_input_metadata_impl(self) -> Any:
        """Return what it takes."""
        metadata = TensorMetadata()
        for spec in self._inputs:
            metadata.add(spec.role, np.dtype(spec.dtype), spec.shape)
        return metadata

    def infer_impl(self, feed_dict: Feed) -> dict[str, NDArray[Any]]:
        """Run once."""
        started = time.perf_counter()
        output = self._run(feed_dict)
        self.inference_time = time.perf_counter() - started
        return {"out_sample": output}

    def _run(self, feed: Feed) -> NDArray[Any]:
        raise NotImplementedError


class TorchRunner(_Runner):
    """The network in torch, in fp32; `predict` is called in place of the network itself."""

    def __init__(
        self, source: Source, predict: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] | None = None
    ) -> None:
        super().__init__("torch", source.interface.specs()[0])
        self._predict = predict or source.predict

    def _run(self, feed: Feed) -> NDArray[Any]:
        # Not inference mode: the weights that are read in it could not be differentiated through afterwards.
        with torch.no_grad():
            result: NDArray[Any] = self._predict({role: torch.as_tensor(x) for role, x in feed.items()}).numpy()
        return result


class BackendRunner(_Runner):
    """The bundle's graph in a backend that is open, through the binding that sampling uses."""

    def __init__(self, name: str, backend: Backend, network: Network) -> None:
        super().__init__(name, network.inputs)
        self._backend = backend
        self._network = network

    def _run(self, feed: Feed) -> NDArray[Any]:
        arrays = {s.role: _contiguous(feed[s.role], s.dtype) for s in self._inputs}
        sizes: dict[int | str, int] = {
            axis: size for s in self._inputs for axis, size in zip(s.shape, arrays[s.role].shape)
        }
        (out,) = (spec for spec in self._network.outputs if spec.role == "out_sample")
        given: tuple[int, ...] = arrays["sample"].shape
        shape = [axis if isinstance(axis, int) else sizes.get(axis, given[i]) for i, axis in enumerate(out.shape)]
        result: NDArray[Any] = run_once(
            self._backend, {s.name: arrays[s.role] for s in self._inputs}, out.name, np.zeros(shape, out.dtype)
        )
        return result.astype(np.float32)


def _contiguous(value: Any, dtype: str) -> NDArray[Any]:
    return np.array(np.asarray(value), dtype=dtype, order="C")
