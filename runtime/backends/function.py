"""A Python function as a backend: no engine, so that everything around one can be tested and explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from dpmrt.errors import ArrayError, BackendError
from dpmrt.runtime.backends.base import Array, Call, Tensor, check_buffers

Function: TypeAlias = Callable[..., "Array | Mapping[str, Array]"]


class FunctionBackend:
    """Call `function(**inputs)`, which returns the one output, or a mapping of all of them.

    >>> spec = (Tensor("x", "float32", ("n",)),), (Tensor("y", "float32", ("n",)),)
    >>> backend = FunctionBackend(lambda x: 2 * x, *spec)
    >>> x, y = np.ones(2, np.float32), np.zeros(2, np.float32)
    >>> backend.bind({"x": x}, {"y": y})()
    >>> y.tolist()
    [2.0, 2.0]
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self._function: Function | None = function
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Call:
        """Fix the buffers of a call once."""
        check_buffers((self.inputs, self.outputs), inputs, outputs)
        inputs, outputs = dict(inputs), dict(outputs)

        def run() -> None:
            if self._function is None:
                raise BackendError("the backend is closed", fix="load the bundle again")
            result = self._function(**inputs)
            given = result if isinstance(result, Mapping) else {next(iter(outputs)): result}
            for name, target in outputs.items():
                value = np.asarray(given[name])
                if value.shape != target.shape:
                    raise ArrayError(
                        f"the function returned another shape for `{name}`", got=value.shape, expected=target.shape
                    )
                np.copyto(target, value, casting="same_kind")

        return run

    def close(self) -> None:
        """Let go of the function."""
        self._function = None
