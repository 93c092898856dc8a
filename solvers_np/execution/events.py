"""What a callback sees of a run, and how it ends one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from dpmrt.errors import SamplingCancelled


@dataclasses.dataclass
class StepEvent:
    """What a callback sees after each network call. `x` is the live state, to read: copy it to keep it."""

    index: int
    total: int
    t: float
    x: NDArray[Any]
    cancelled: bool = False

    def cancel(self) -> None:
        """Stop the run; it raises SamplingCancelled."""
        self.cancelled = True


Callback = Callable[[StepEvent], object]


def tell(callback: Callback, event: StepEvent) -> None:
    """Call the callback, and raise SamplingCancelled if it cancelled."""
    callback(event)
    if event.cancelled:
        raise SamplingCancelled(
            "sampling was cancelled by its callback", got=f"after call {event.index + 1} of {event.total}"
        )
