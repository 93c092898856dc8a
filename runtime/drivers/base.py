"""What a driver is, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from dpmrt.runtime.drivers.model import NetworkModel
from dpmrt.solvers_np import Callback, NoiseSource


class Report(Protocol):
    """What a driver did: steps, errors, calls."""

    def to_json(self) -> Mapping[str, Any]:
        """Return the report as plain numbers, lists and texts."""
        ...

    def plot(self, path: str | Path) -> Path:
        """Draw the report to a .png."""
        ...


@dataclass(frozen=True)
class Driven:
    """Samples, and the report of how they came about."""

    samples: NDArray[Any]
    report: Report


class Driver(Protocol):
    """A sampler of its own course; `options` are its own, and it refuses those that it does not know.

    `callback` is told after every network call, with an index that counts the calls, and the most that there may be.
    """

    def __call__(
        self,
        model: NetworkModel,
        x_T: NDArray[Any],
        *,
        noise: NoiseSource,
        callback: Callback | None = None,
        **options: Any,
    ) -> Driven:
        """Sample from unit noise `x_T`."""
        ...
