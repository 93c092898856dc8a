"""What a noise source is, and how one is made from whatever a caller gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError

Shape = tuple[int, ...]
Asker = Callable[[Shape, float, float], NDArray[Any]]


class NoiseSource(Protocol):
    """Gives standard normal noise, one array a call."""

    def normal(self, shape: Shape) -> NDArray[Any]:
        """Return the next draw."""
        ...


class IntervalNoise(NoiseSource, Protocol):
    """A source that wants to know which interval its noise crosses; `between` is then asked, not `normal`."""

    def between(self, shape: Shape, start: float, end: float) -> NDArray[Any]:
        """Return the noise between two shares of noise in the variance, sigma^2/(alpha^2 + sigma^2), in [0, 1]."""
        ...


def asker(source: NoiseSource) -> Asker:
    """Return the one function to ask a source with: its `between`, or else its `normal` without the interval."""
    between: Asker | None = getattr(source, "between", None)
    if between is not None:
        return between
    normal = source.normal
    return lambda shape, start, end: normal(shape)


class RecordedNoise:
    """Noise that was drawn before: an array whose first axis counts the draws."""

    def __init__(self, draws: NDArray[Any]) -> None:
        try:
            self._draws = np.asarray(draws)
        except (TypeError, ValueError) as error:
            raise ArrayError("the recorded noise is no array", got=error, expected="an array, draws first") from None
        self._next = 0

    def __len__(self) -> int:
        return len(self._draws) - self._next

    def normal(self, shape: Shape) -> NDArray[Any]:
        """Return the next recorded draw."""
        if self._next >= len(self._draws):
            raise ArrayError("the recorded noise is used up", got=f"{len(self._draws)} draws", expected="one more")
        draw: NDArray[Any] = self._draws[self._next]
        self._next += 1
        return draw

    def check(self, shape: Shape, draws: int) -> None:
        """Refuse a plan for which what is left does not suffice."""
        left = self._draws[self._next :] if self._draws.ndim else self._draws
        if left.dtype.kind != "f":
            raise ArrayError(
                "the recorded noise has the wrong dtype", got=left.dtype, expected="a floating-point dtype"
            )
        if left.shape[1:] != shape or len(left) < draws:
            raise ArrayError(
                "the recorded noise does not fit the plan",
                got=f"shape {left.shape}",
                expected=f"{(draws, *shape)}: one draw for each row that adds noise",
            )
        if not np.isfinite(left[:draws]).all():
            raise ArrayError("the recorded noise holds NaN or infinity", expected="finite numbers")


class PerSample:
    """One source for each sample of the batch, so that a sample does not depend on the batch it is in.

    As diffusers does with a list of generators: each source draws a batch of one.
    """

    def __init__(self, sources: Sequence[NoiseSource]) -> None:
        self._askers = [asker(source) for source in sources]
        self._normals = [source.normal for source in sources]

    def normal(self, shape: Shape) -> NDArray[Any]:
        """Return the next draw of every source, stacked."""
        self.check(shape)
        return np.concatenate([normal((1, *shape[1:])) for normal in self._normals])

    def between(self, shape: Shape, start: float, end: float) -> NDArray[Any]:
        """Return what every source draws for the interval, stacked."""
        self.check(shape)
        return np.concatenate([ask((1, *shape[1:]), start, end) for ask in self._askers])

    def check(self, shape: Shape) -> None:
        """Refuse a batch of another size."""
        if not shape or shape[0] != len(self._normals):
            raise ArrayError(
                "the noise has another number of seeds than the batch has samples",
                got=f"{len(self._normals)} seeds, shape {shape}",
                expected="one seed for each sample",
            )


class CalledNoise:
    """A function of the shape as a source."""

    def __init__(self, function: Callable[[Shape], NDArray[Any]]) -> None:
        self._function = function

    def normal(self, shape: Shape) -> NDArray[Any]:
        """Call the function; what it drew on a device is fetched."""
        drawn: Any = self._function(shape)
        fetch = getattr(drawn, "get", None) if hasattr(drawn, "__cuda_array_interface__") else None
        return np.asarray(drawn if fetch is None else fetch())
