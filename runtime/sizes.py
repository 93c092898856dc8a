"""Sizes of a request's tensors: what the graph fixes, what an axis takes, and one size for an axis that is shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpmrt.engines import Axis
from dpmrt.errors import ArrayError

#: how exporters write an axis without a name, which is shared with none
UNNAMED = ("?", "")


class Sizes:
    """The sizes that the free axes of one request have, each with the tensor that set it.

    >>> sizes = Sizes({"height": Axis(opt=64, min=32, max=128, multiple=8)})
    >>> sizes.take("the sample", (4, "height", "width"), (4, 64, 96))
    >>> sizes.take("the mask", (1, "height", "width"), (1, 64, 80))
    Traceback (most recent call last):
    ...
    dpmrt.errors.ArrayError: the mask and the sample have different sizes on one axis
      got:      width = 80
      expected: width = 96, as the sample has
    """

    def __init__(self, axes: Mapping[str, Axis]) -> None:
        self._axes = axes
        self._set: dict[str, tuple[int, str]] = {}

    def take(self, what: str, declared: Sequence[int | str], shape: Sequence[int]) -> None:
        """Hold the shape of a tensor against what is declared; raises ArrayError that names the axis."""
        fixed = all(axis == size for axis, size in zip(declared, shape) if isinstance(axis, int))
        if len(declared) != len(shape) or not fixed or min(shape, default=1) < 1:
            raise ArrayError(f"{what} does not fit the network", got=show(shape), expected=show(declared))
        for axis, size in zip(declared, shape):
            if isinstance(axis, str) and axis not in UNNAMED:
                self._take_axis(what, axis, size)

    def _take_axis(self, what: str, name: str, size: int) -> None:
        limits = self._axes.get(name)
        if limits is not None and not limits.takes(size):
            raise ArrayError(
                f"{what} has a size that the network does not take",
                got=f"{name} = {size}",
                expected=f"{name} = {limits}",
                fix="choose such a size, or export the network again with wider bounds",
            )
        known, first = self._set.setdefault(name, (size, what))
        if known != size:
            raise ArrayError(
                f"{what} and {first} have different sizes on one axis",
                got=f"{name} = {size}",
                expected=f"{name} = {known}, as {first} has",
            )


def show(shape: Sequence[int | str]) -> str:
    """Return a shape as text.

    >>> show(("batch", 4, 8))
    '(batch, 4, 8)'
    """
    return "(" + ", ".join(str(axis) for axis in shape) + ("," if len(shape) == 1 else "") + ")"
