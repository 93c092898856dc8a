"""The network as an adaptive run sees it: x0 or eps at a level, every call counted and checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError
from dpmrt.solvers_np.execution.events import Callback, StepEvent, tell
from dpmrt.solvers_np.execution.failures import not_finite
from dpmrt.solvers_np.execution.instructions import apply_instruction
from dpmrt.solvers_np.levels import Level
from dpmrt.solvers_np.plans.instructions import Instruction
from dpmrt.solvers_np.prediction import Pair, to_eps, to_x0, x0_to_eps

Array = NDArray[Any]


class CountedNetwork:
    """model(x, t) behind its prediction type, for one shape; `calls` is how often it was asked."""

    def __init__(
        self,
        model: Callable[[Array, Array], Array],
        prediction: str,
        limit: Instruction | None,
        max_calls: int,
        callback: Callback | None,
    ) -> None:
        self.calls = 0
        self._model = model
        self._prediction = prediction
        self._limit = limit
        self._max_calls = max_calls
        self._callback = callback

    def x0(self, x: Array, level: Level) -> Array:
        """Return the network's x0, limited where there is a limit; a new array."""
        x0 = self._ask(x, level, to_x0(self._prediction, level))
        if self._limit is not None:
            apply_instruction(self._limit, x0, np.empty(x0[0].size, x0.dtype))
        return x0

    def eps(self, x: Array, level: Level) -> Array:
        """Return the network's eps, that of the limited x0 where there is a limit; a new array."""
        if self._limit is None:
            return self._ask(x, level, to_eps(self._prediction, level))
        of_state, of_x0 = x0_to_eps(level)
        return of_state * x + of_x0 * self.x0(x, level)

    def _ask(self, x: Array, level: Level, weights: Pair) -> Array:
        # the function gets a copy, so that it may do with it what it likes
        raw = np.asarray(self._model(x * level.in_scale, np.full(len(x), level.t, x.dtype)))
        self.calls += 1
        if raw.shape != x.shape:
            raise ArrayError("the network's output has the wrong shape", got=raw.shape, expected=x.shape)
        if not np.isfinite(raw).all():
            raise not_finite("network", call=self.calls, calls=self._max_calls, t=level.t)
        if self._callback is not None:
            seen = x.view()
            seen.flags.writeable = False
            tell(self._callback, StepEvent(self.calls - 1, self._max_calls, level.t, seen))
        of_state, of_raw = weights
        made: Array = of_raw * raw.astype(x.dtype, copy=False)
        return made + of_state * x if of_state else made
