"""A classifier of noisy samples: the gradient of log p(y | x_t) with respect to x_t, which guides towards a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import Network
from dpmrt.errors import ArrayError, BundleError, NonFiniteError
from dpmrt.runtime.backends import host_engine, open_backend
from dpmrt.runtime.labels import check_labels
from dpmrt.runtime.network_checks import check_network, check_rows
from dpmrt.runtime.request import Labels, check_array
from dpmrt.runtime.sizes import Sizes

_TAKEN = ("sample", "timestep", "class_labels")


class Classifier:
    """The classifier of a bundle, run by whatever runs anywhere."""

    def __init__(self, root: Path, network: Network, *, classes: int | None = None) -> None:
        if unknown := [spec.role for spec in network.inputs if spec.role not in _TAKEN]:
            raise BundleError(
                "the classifier takes an input that dpmrt does not fill",
                got=", ".join(unknown),
                expected=", ".join(_TAKEN),
                fix="export the classifier again",
            )
        self._network = network
        self._classes = classes
        self._out = next(spec for spec in network.outputs if spec.role == "gradient")
        self._backend = open_backend(host_engine(network), root, network)
        try:
            check_network(self._backend, network)
        except BaseException:
            self._backend.close()
            raise

    def gradient(self, x: NDArray[Any], t: float | NDArray[Any], label: Labels) -> NDArray[np.float32]:
        """Return the gradient at each of the samples `x`; time and label are one for all, or one a sample."""
        x = self._check_state(x)
        check_rows(self._network, len(x), False)
        values = {
            "sample": x,
            "timestep": self._check_time(t, len(x)),
            "class_labels": check_labels(len(x), label, classes=self._classes),
        }
        inputs = {spec.name: np.array(values[spec.role], spec.dtype, order="C") for spec in self._network.inputs}
        out = np.zeros(x.shape, self._out.dtype)
        self._backend.bind(inputs, {self._out.name: out})()
        if not np.isfinite(out).all():
            raise NonFiniteError("the classifier returned NaN or infinity", expected="finite numbers")
        return out.astype(np.float32, copy=False)

    def close(self) -> None:
        """Let go of the network."""
        self._backend.close()

    def _check_state(self, x: object) -> NDArray[Any]:
        array = check_array("x", x)
        if array.dtype.kind != "f" or array.ndim < 1:
            raise ArrayError(
                "x is no batch of samples", got=f"{array.dtype}{array.shape}", expected="floats, (batch, ...)"
            )
        spec = self._network.input("sample")
        assert spec is not None
        Sizes(self._network.axes).take("x", (len(array), *spec.shape[1:]), array.shape)
        state = _cast(array, spec.dtype)
        if not np.isfinite(state).all():
            raise ArrayError("x holds NaN or infinity", expected=f"finite numbers, in {spec.dtype}")
        return state

    def _check_time(self, t: object, batch: int) -> NDArray[Any]:
        array, spec = check_array("t", t), self._network.input("timestep")
        assert spec is not None
        fits = array.dtype.kind in "fiu" and array.shape in ((), (1,), (batch,))
        if not fits or not np.isfinite(_cast(array, spec.dtype)).all():
            got = f"{array.dtype}{array.shape}" if array.size > 1 else array
            raise ArrayError("t is no time", got=got, expected=f"a finite number, or {batch} of them, one a sample")
        if "int" in spec.dtype and (array != np.rint(array)).any():
            raise ArrayError(
                "the classifier takes whole timesteps", got=array, expected=f"whole numbers, as t is {spec.dtype}"
            )
        shape = tuple(axis if isinstance(axis, int) else batch for axis in spec.shape)
        if array.size > 1 and shape != array.shape:
            raise ArrayError("the classifier takes one time for all samples", got=array.shape, expected=shape)
        return np.broadcast_to(array.reshape(()) if array.size == 1 else array, shape)


def _cast(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)
