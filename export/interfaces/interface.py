"""The tensors of a network: their roles, shapes and meaning, and how `forward` is called with them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch

from dpmrt.engines import Axis, TensorSpec
from dpmrt.errors import ExportError, OptionError

#: a size fixes an axis, an Axis or "free" leaves it open
Sizes: TypeAlias = "Mapping[str, int | Axis | Literal['free']]"

EXAMPLE_LAST_TIME = 999.0
_TORCH = {"float32": torch.float32, "int64": torch.int64}


@dataclass(frozen=True)
class Draw:
    """How values are made up for an input: normally distributed, even between two bounds, or whole numbers."""

    kind: Literal["normal", "uniform", "whole"] = "normal"
    low: float = 0.0
    high: float = 1.0

    def __call__(self, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
        """Draw a tensor."""
        if self.kind == "normal":
            return torch.randn(shape, generator=generator)
        spread = torch.rand(shape, generator=generator) * (self.high - self.low) + self.low
        return spread.floor() if self.kind == "whole" else spread


@dataclass(frozen=True)
class Input:
    """One input: its role, its shape (a string is an axis by name), and where in the arguments of forward it goes.

    A `negated` input says what is wanted of the sample, so that guidance can move away from another value of it.
    With `repeated`, each row is given to forward as many times in turn as that axis of the sample is long.
    """

    role: str
    shape: tuple[int | str, ...]
    dtype: Literal["float32", "int64"] = "float32"
    path: tuple[str, ...] = ()
    draw: Draw = Draw()
    repeated: int | None = None
    negated: bool = False

    def __post_init__(self) -> None:
        if not self.path:
            object.__setattr__(self, "path", (self.role,))


@dataclass(frozen=True)
class FreeAxis:
    """What sizes an axis can have, and whether it stays open unless the caller says otherwise.

    Where `closed` gives a reason, one size is all that a graph can have.
    """

    axis: Axis
    open: bool = True
    closed: str = ""


@dataclass(frozen=True)
class Interface:
    """What a network takes and gives.

    `arguments` are passed to forward as they are; `pick` leads from what it returns to the one tensor: an index or
    the name of an attribute. `labels` is how many class labels the network knows, 0 when it takes none.
    """

    inputs: tuple[Input, ...]
    output: tuple[int | str, ...]
    axes: Mapping[str, FreeAxis]
    labels: int = 0
    channel_axis: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pick: tuple[int | str, ...] = ()

    def settle(self, sizes: Sizes | None = None) -> Interface:
        """Return the interface with the axes fixed or open as asked, and all others as they are by default."""
        chosen = dict(sizes or {})
        if unknown := sorted(set(chosen) - set(self.axes)):
            raise OptionError(
                "the network has no such axis",
                got=", ".join(unknown),
                expected=", ".join(self.axes) or "none: every size is fixed",
                fix="leave it out",
            )
        fixed: dict[str, int] = {}
        free: dict[str, FreeAxis] = {}
        for name, declared in self.axes.items():
            wish = chosen.get(name, "free" if declared.open else declared.axis.opt)
            if declared.closed and not isinstance(wish, int):
                raise OptionError(
                    f"the axis {name} cannot be open",
                    got=f"{name}={wish if wish == 'free' else _bounds(wish)}",
                    expected=f"one size, as {declared.closed}",
                    fix=f"{name}={declared.axis.opt}, or leave it out",
                )
            if wish == "free":
                free[name] = FreeAxis(declared.axis)
            elif isinstance(wish, Axis):
                for size in {wish.min, wish.opt, *([wish.max] if wish.max else [])}:
                    _check_size(name, size, declared.axis)
                free[name] = FreeAxis(Axis(wish.opt, wish.min, wish.max, max(wish.multiple, declared.axis.multiple)))
            else:
                fixed[name] = _check_size(name, wish, declared.axis)
        return dataclasses.replace(
            self,
            inputs=tuple(dataclasses.replace(i, shape=_filled(i.shape, fixed)) for i in self.inputs),
            output=_filled(self.output, fixed),
            axes=free,
        )

    def with_one_time(self) -> Interface:
        """Return the interface with one timestep for the whole batch instead of one a sample."""
        inputs = (dataclasses.replace(i, shape=()) if i.role == "timestep" else i for i in self.inputs)
        return dataclasses.replace(self, inputs=tuple(inputs))

    def input(self, role: str) -> Input | None:
        """Return the input of this role, if the network has one."""
        return next((entry for entry in self.inputs if entry.role == role), None)

    def specs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return inputs and outputs as a manifest lists them."""
        inputs = tuple(TensorSpec(i.role, i.role, i.dtype, i.shape) for i in self.inputs)
        return inputs, (TensorSpec("out_sample", "out_sample", "float32", self.output),)

    def free(self) -> dict[str, Axis]:
        """Return what is known of the axes that are open."""
        return {name: entry.axis for name, entry in self.axes.items()}

    def sizes(self, **sizes: int) -> dict[str, int]:
        """Return a size for every open axis: the usual one, where none is given."""
        return {name: sizes.get(name, entry.axis.opt) for name, entry in self.axes.items()}

    def state_shape(self, **sizes: int) -> tuple[int, ...]:
        """Return the shape of one sample's state, which may have fewer channels than the network takes."""
        known = self.sizes(**sizes)
        sample = next(i for i in self.inputs if i.role == "sample")
        shape = [known[a] if isinstance(a, str) else a for a in sample.shape]
        given = self.output[self.channel_axis]
        if isinstance(given, int) and given < shape[self.channel_axis]:
            shape[self.channel_axis] = given
        return tuple(shape[1:])

    def examples(self, *, seed: int = 0, **sizes: int) -> dict[str, torch.Tensor]:
        """Return inputs to trace or to compare with, by role; the times are fractional, the labels the last ones."""
        generator = torch.Generator().manual_seed(seed)
        known = self.sizes(**sizes)
        tensors = {}
        for entry in self.inputs:
            shape = [known[axis] if isinstance(axis, str) else axis for axis in entry.shape]
            if entry.role == "timestep":
                value = EXAMPLE_LAST_TIME * torch.rand(shape, generator=generator)
            elif entry.role == "class_labels":
                value = torch.arange(self.labels - shape[0], self.labels) % self.labels
            else:
                value = entry.draw(shape, generator)
            tensors[entry.role] = value.to(_TORCH[entry.dtype])
        return tensors

    def call(self, model: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Call the network with one tensor a role, and return its one output."""
        arguments: dict[str, Any] = dict(self.arguments)
        for entry in self.inputs:
            place = arguments
            for step in entry.path[:-1]:
                place = place.setdefault(step, {})
            place[entry.path[-1]] = self._repeated(entry, tensors)
        result = model(**arguments)
        for part in self.pick:
            result = getattr(result, part) if isinstance(part, str) else result[part]
        return result

    def _repeated(self, entry: Input, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        tensor = tensors[entry.role]
        if entry.repeated is None:
            return tensor
        times = tensors["sample"].shape[entry.repeated]
        return tensor.unsqueeze(1).expand(-1, times, *tensor.shape[1:]).flatten(0, 1)

    def check_forward(self, model: Any) -> None:
        """Refuse an interface whose arguments are not those of the network's forward."""
        signature = inspect.signature(type(model).forward)
        names = {**self.arguments, **{entry.path[0]: None for entry in self.inputs}}
        try:
            signature.bind(model, **names)
        except TypeError as error:
            raise ExportError(
                "the inputs that are declared are not those of the network's forward",
                got=f"{error}: {', '.join(names)}",
                expected=f"{type(model).__qualname__}.forward{signature}",
                fix='name the argument of each input in the spec: argument = "..."',
            ) from None


def _filled(shape: tuple[int | str, ...], sizes: Mapping[str, int]) -> tuple[int | str, ...]:
    return tuple(sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in shape)


def _bounds(axis: Axis) -> str:
    return f"{axis.min}:{axis.opt}:{axis.max or ''}"


def _check_size(name: str, size: object, axis: Axis) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or not axis.takes(size):
        raise OptionError(
            f"the axis {name} cannot have this size",
            got=repr(size),
            expected=str(axis),
            fix=f"{name}={axis.opt}, or {name}=free",
        )
    return size
