"""Recorder: what a run was like on the way, as arrays: states, and what the network made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.runtime.request import check_whole
from dpmrt.solvers_np import CallView, Hook, RunView, StateView
from dpmrt.solvers_np.prediction import to_x0

SHOWN = ("x0", "x")


class Recorder(Hook):
    """Keeps every `every`-th network call's state and x0, and the sample at the end.

    Give it as the last of the hooks, so that it sees what the others changed. Of a run, `x` holds the states that
    the network was asked for and `x0` what it made of them, (calls kept, batch, *shape), both with the sample at the
    end; `t` holds the times, the last of them NaN. A later run begins anew.

    >>> from dpmrt.runtime import load
    >>> with load("digits") as pipeline:
    ...     recorder = Recorder(pipeline.manifest.prediction, every=2)
    ...     sample = pipeline.sample(3, steps=6, label=1, hooks=[recorder])
    >>> recorder.x0.shape, bool((recorder.x0[-1] == sample).all())
    ((4, 3, 1, 16, 16), True)
    """

    def __init__(self, prediction: str, *, every: int = 1, keep: Sequence[str] = SHOWN) -> None:
        self._prediction = prediction
        self._every = check_whole("every", every, 1)
        if isinstance(keep, str) or not keep or not set(keep) <= set(SHOWN):
            raise OptionError("keep names nothing that a recorder knows", got=repr(keep), expected=f"of {SHOWN}")
        self._keep = tuple(keep)
        self._seen: dict[str, list[Any]] = {}
        self._times: list[float] = []

    def start(self, run: RunView) -> None:
        """Begin anew."""
        self._seen = {name: [] for name in self._keep}
        self._times = []

    def output(self, call: CallView) -> None:
        """Keep the state, and the x0 that the network's output says."""
        if call.index % self._every:
            return
        self._times.append(call.t)
        if "x" in self._seen:
            self._seen["x"].append(_host(call.x))
        if "x0" in self._seen:
            state, raw = to_x0(self._prediction, call.level)
            kind = call.raw.dtype.type
            self._seen["x0"].append(_host(kind(state) * call.x + kind(raw) * call.raw))

    def state(self, step: StateView) -> None:
        """Keep the sample."""
        if step.last:
            self._times.append(float("nan"))
            for kept in self._seen.values():
                kept.append(_host(step.x))

    @property
    def t(self) -> NDArray[np.float64]:
        """Return the time of each call that was kept; NaN for the sample."""
        return np.array(self._times)

    @property
    def x(self) -> NDArray[Any]:
        """Return the states, the sample last."""
        return self._stacked("x")

    @property
    def x0(self) -> NDArray[Any]:
        """Return the predictions of x0, the sample last."""
        return self._stacked("x0")

    def _stacked(self, name: str) -> NDArray[Any]:
        if not self._seen.get(name):
            raise OptionError(
                f"the recorder holds no {name}",
                got="no run yet" if name in self._keep else f"keep={self._keep}",
                expected=f"a run with hooks=[recorder], which keeps {name!r}",
            )
        return np.stack(self._seen[name])


def _host(array: Any) -> NDArray[Any]:
    """Return a copy on the host."""
    get = getattr(array, "get", None)
    copied: NDArray[Any] = np.array(array) if get is None else get()
    return copied
