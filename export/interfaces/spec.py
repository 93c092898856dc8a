"""An interface as its user writes it: a TOML file, or the same as a mapping in Python."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from dpmrt.engines import Axis
from dpmrt.errors import ExportError
from dpmrt.export.interfaces.interface import Draw, FreeAxis, Input, Interface

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Shape = tuple[int | str, ...]


class InputSpec(msgspec.Struct, forbid_unknown_fields=True):
    """One input: shape, type, the argument of forward (with dots, a key below it), and what its values are like."""

    shape: Shape
    dtype: Literal["float32", "int64"] = "float32"
    argument: str | None = None
    values: Literal["normal", "uniform", "whole"] = "normal"
    low: float = 0.0
    high: float = 1.0
    guided: bool = False


class AxisSpec(msgspec.Struct, forbid_unknown_fields=True):
    """An axis that may vary: its usual size, its bounds, and whether it is left open by default."""

    size: int
    min: int = 1
    max: int | None = None
    multiple: int = 1
    open: bool = True


class OutputSpec(msgspec.Struct, forbid_unknown_fields=True):
    """The output's shape, and the way to it in what forward returns: indices and attribute names."""

    shape: Shape
    pick: tuple[int | str, ...] = ()


class Spec(msgspec.Struct, forbid_unknown_fields=True):
    """The whole of a spec."""

    inputs: dict[str, InputSpec]
    output: OutputSpec
    axes: dict[str, AxisSpec] = {}
    arguments: dict[str, bool | int | float | str] = {}
    labels: int = 0
    null_label: int | None = None
    channel_axis: int = 1


def read_spec(path: Path) -> Spec:
    """Read a spec from a TOML file."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError("the spec cannot be read", got=error, expected="a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExportError("the spec is not TOML", got=f"{path}: {error}", expected="a TOML file") from None
    return spec_of(content, str(path))


def spec_of(content: Mapping[str, Any], where: str) -> Spec:
    """Check a spec that is a mapping."""
    try:
        return msgspec.convert(content, Spec)
    except msgspec.ValidationError as error:
        raise ExportError(
            "the spec does not follow its form",
            got=f"{where}: {error}",
            expected="[inputs.NAME] with shape, [output] with shape, [axes.NAME] with size",
            fix="docs/export.md shows one",
        ) from None


def interface_of_spec(spec: Spec, where: str) -> Interface:
    """Return the interface that a spec describes; one that contradicts itself is refused."""
    named = {axis for shape in _shapes(spec) for axis in shape if isinstance(axis, str)}
    known = {"batch": AxisSpec(1), **spec.axes}
    problem = _problem(spec, named, known)
    if problem:
        raise ExportError("the spec contradicts itself", got=f"{where}: {problem[0]}", expected=problem[1])
    return Interface(
        inputs=tuple(_input(role, entry) for role, entry in spec.inputs.items()),
        output=spec.output.shape,
        axes={name: _axis(name, known[name], where) for name in known if name in named},
        labels=spec.labels,
        channel_axis=spec.channel_axis,
        arguments=dict(spec.arguments),
        pick=spec.output.pick,
    )


def _problem(spec: Spec, named: set[str], known: Mapping[str, AxisSpec]) -> tuple[str, str] | None:
    missing = [role for role in ("sample", "timestep") if role not in spec.inputs]
    if missing:
        return f"no [inputs.{missing[0]}]", "an input for the sample and one for the timestep"
    if unknown := sorted(named - set(known)):
        return f"no [axes.{unknown[0]}], which a shape names", "every axis but batch under [axes.NAME]"
    if unused := sorted(set(spec.axes) - named):
        return f"[axes.{unused[0]}], which no shape names", "axes that are used"
    if sizes := [size for shape in _shapes(spec) for size in shape if isinstance(size, int) and size < 1]:
        return f"an axis of {sizes[0]}", "sizes of 1 or more"
    if twice := _claimed_twice(spec):
        return f"the argument {twice}, which two are passed as", "an argument of its own for each input"
    sample, output = spec.inputs["sample"].shape, spec.output.shape
    if not sample or sample[0] != "batch" or output[:1] != ("batch",):
        return f"sample {list(sample)}, output {list(output)}", 'shapes that begin with "batch"'
    if len(sample) != len(output) or not 0 < spec.channel_axis < len(sample):
        return f"sample {list(sample)}, output {list(output)}", "an output of the sample's rank, and its channels"
    others = [k for k in range(len(sample)) if k != spec.channel_axis and sample[k] != output[k]]
    if others:
        return f"sample {list(sample)}, output {list(output)}", "an output that differs in its channels at most"
    if spec.inputs["timestep"].shape not in ((), ("batch",)):
        return f"timestep {list(spec.inputs['timestep'].shape)}", '[] or ["batch"]'
    if "class_labels" in spec.inputs and spec.labels < 1:
        return "class_labels and no `labels`", "labels = how many the network knows"
    return None


def _claimed_twice(spec: Spec) -> str | None:
    """Return an argument of forward that two inputs go to, whole or to the same key below it."""
    paths = [entry.argument or role for role, entry in spec.inputs.items()] + list(spec.arguments)
    below = [(one, other) for k, one in enumerate(paths) for j, other in enumerate(paths) if k != j]
    return next((one for one, other in below if other == one or other.startswith(f"{one}.")), None)


def _shapes(spec: Spec) -> list[Shape]:
    return [spec.output.shape, *(entry.shape for entry in spec.inputs.values())]


def _input(role: str, entry: InputSpec) -> Input:
    path = tuple((entry.argument or role).split("."))
    dtype = "int64" if role == "class_labels" else entry.dtype
    return Input(role, entry.shape, dtype, path, Draw(entry.values, entry.low, entry.high), negated=entry.guided)


def _axis(name: str, spec: AxisSpec, where: str) -> FreeAxis:
    try:
        axis = msgspec.convert(
            {"opt": spec.size, "min": max(spec.min, spec.multiple), "max": spec.max, "multiple": spec.multiple}, Axis
        )
    except msgspec.ValidationError as error:
        raise ExportError(
            "the spec does not follow its form", got=f"{where}: axes.{name}: {error}", expected="sizes of 1 or more"
        ) from None
    if not axis.takes(axis.opt):
        raise ExportError(
            "the spec contradicts itself", got=f"{where}: axes.{name}: size {axis.opt}", expected=str(axis)
        )
    return FreeAxis(axis, spec.open)
