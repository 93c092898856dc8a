"""A trajectory as one CUDA graph: captured from the stream when it has run once, and replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

from dpmrt.solvers_np.execution.device.place import Place, first_line

_LOG = logging.getLogger("dpmrt")


class Trajectory:
    """Runs `work`, which enqueues a whole trajectory on the stream of a place.

    The first run is a plain one: libraries allocate and load kernels then, which a capture forbids. The second is
    captured, and replayed from then on, as long as `key` (plan, shapes, addresses) stays the same. Where the capture
    fails the reason is logged, once, and every run is a plain one.
    """

    def __init__(self, place: Place, work: Callable[[], None]) -> None:
        self._place, self._work = place, work
        self._key: Hashable = None
        self._graph: Any = None
        self.refused: str | None = None

    @property
    def captured(self) -> bool:
        """Return whether runs are replayed."""
        return self._graph is not None

    def run(self, key: Hashable) -> None:
        """Enqueue the trajectory, in the way that is known to work for this key."""
        if key != self._key:
            self._graph, self._key = None, key
            self._work()
            return
        if self._graph is None and self.refused is None:
            self._capture()
        if self._graph is None:
            self._work()
        else:
            self._graph.launch(stream=self._place.stream)

    def forget(self) -> None:
        """Run plainly once more before anything is replayed: the last run failed."""
        self._graph = self._key = None

    def _capture(self) -> None:
        stream = self._place.stream
        # Nothing of an earlier run may be pending in another stream's name when the capture begins.
        stream.synchronize()
        failure: Exception | None = None
        graph: Any = None
        try:
            stream.begin_capture()
            try:
                self._work()
            except Exception as error:
                failure = error
            finally:
                # The stream must leave the capture whatever happened, or it could never be used again.
                graph = stream.end_capture()
        except Exception as error:
            failure = failure or error
        if failure is None:
            self._graph = graph
            return
        self.refused = f"{type(failure).__name__}: {first_line(failure)}"
        _LOG.warning("the trajectory could not be captured as a CUDA graph, and runs call by call: %s", self.refused)
