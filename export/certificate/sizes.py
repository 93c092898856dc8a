"""Which size a trajectory is sampled at."""

from __future__ import annotations

from collections.abc import Sequence

from dpmrt.errors import OptionError
from dpmrt.export.interfaces import Interface


def sizes_of_shape(interface: Interface, shape: Sequence[int] | None) -> dict[str, int]:
    """Return the sizes of the open axes that give the state of one sample this shape; none for the usual one."""
    if shape is None:
        return {}
    declared = _declared(interface)
    fits = len(shape) == len(declared) and all(
        size == axis if isinstance(axis, int) else interface.axes[axis].axis.takes(size)
        for axis, size in zip(declared, shape)
    )
    if not fits:
        raise OptionError(
            "the network takes no samples of this shape",
            got=tuple(shape),
            expected=f"({', '.join(_allowed(interface, axis) for axis in declared)})",
            fix="leave --shape out for the usual one",
        )
    return {axis: size for axis, size in zip(declared, shape) if isinstance(axis, str)}


def _declared(interface: Interface) -> list[int | str]:
    """Return the shape of the state without the batch axis, a string where it is open."""
    sample = interface.input("sample")
    assert sample is not None
    channel = interface.channel_axis - 1
    shape = list(sample.shape[1:])
    shape[channel] = interface.state_shape()[channel]
    return shape


def _allowed(interface: Interface, axis: int | str) -> str:
    return str(axis) if isinstance(axis, int) else f"{axis}: {interface.axes[axis].axis}"
