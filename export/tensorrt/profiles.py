"""Optimisation profiles: from the axes of a manifest, or from trtexec's --minShapes, --optShapes and --maxShapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dpmrt.engines import Axis, Network, TensorSpec
from dpmrt.engines.built import Profile, Range
from dpmrt.engines.built.schema import Shape
from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.sizes import UNNAMED, Sizes, show

#: a batch that nobody has limited: guidance makes two samples of one, and four images are a sheet
USUAL_BATCH = Axis(opt=2, min=1, max=8)
_FLAGS = ("--minShapes", "--optShapes", "--maxShapes")
_LARGEST = 2**31 - 1


def parse_shapes(text: str, flag: str = "--optShapes") -> dict[str, Shape]:
    """Return shapes by input from trtexec's `name:1x4x64x64,name2:2`.

    >>> parse_shapes("sample:1x4x64x64,timestep:1")
    {'sample': (1, 4, 64, 64), 'timestep': (1,)}
    """
    shapes: dict[str, Shape] = {}
    for part in text.split(","):
        # Names of inputs may hold colons themselves.
        name, _, sizes = part.strip().rpartition(":")
        name = name.strip().strip("'\"")
        try:
            shape = tuple(int(size) for size in sizes.split("x"))
        except ValueError:
            shape = ()
        if not name or not shape or not all(1 <= size <= _LARGEST for size in shape):
            raise OptionError(
                f"{flag} is no shape", got=part, expected="INPUT:1x4x64x64", fix=f"{flag}=sample:1x4x64x64"
            )
        if name in shapes:
            raise OptionError(
                f"{flag} names an input twice", got=text, expected="each input once", fix=f"{flag}={part}"
            )
        shapes[name] = shape
    return shapes


def make_profiles(
    network: Network,
    mins: Sequence[str] = (),
    opts: Sequence[str] = (),
    maxs: Sequence[str] = (),
    *,
    sizes: Mapping[str, int] | None = None,
) -> tuple[Profile, ...]:
    """Return the profiles for a network: one of its own axes, or one for each set of the three flags.

    The flags may name some of the inputs: the others follow from the axes that they share with those that are named,
    and from the manifest. `sizes` are the usual sizes of axes that the manifest does not speak of.
    """
    free = [spec for spec in network.inputs if any(isinstance(axis, str) for axis in spec.shape)]
    given = max(len(mins), len(opts), len(maxs))
    if not free:
        if given:
            raise OptionError(
                "the graph has no free axes, so that there are no shapes to choose",
                got=next(iter((*opts, *mins, *maxs))),
                expected=", ".join(f"{spec.name}:{_dims(spec.shape)}" for spec in network.inputs),
                fix="leave the shapes out, or export the network with free axes: dpmrt export … --axis batch=free",
            )
        return ()
    if not given:
        return (_complete(network, free, ({}, {}, {}), sizes or {}),)
    for flag, texts in zip(_FLAGS, (mins, opts, maxs)):
        if texts and len(texts) != given:
            raise OptionError(
                "every profile needs its own shapes",
                got=", ".join(f"{name} {len(some)} times" for name, some in zip(_FLAGS, (mins, opts, maxs))),
                expected=f"each flag {given} times, or not at all",
                fix=f"give {flag} once for each profile",
            )
    profiles = []
    for index in range(given):
        parsed = [
            parse_shapes(texts[index], flag) if texts else {} for flag, texts in zip(_FLAGS, (mins, opts, maxs))
        ]
        for flag, shapes in zip(_FLAGS, parsed):
            # Before what is missing is filled in, so that the flag that was given is the one that is named.
            _sizes(network, shapes, flag)
        profiles.append(_complete(network, free, _filled(*parsed), sizes or {}))
    for index, profile in enumerate(profiles):
        if profile in profiles[:index]:
            raise OptionError(
                "two profiles are the same", got=_text(profile), expected="each profile once", fix="leave one out"
            )
    return tuple(profiles)


def _filled(
    low: dict[str, Shape], opt: dict[str, Shape], high: dict[str, Shape]
) -> tuple[dict[str, Shape], dict[str, Shape], dict[str, Shape]]:
    """Fill what is missing as trtexec does: one shape stands for all three, and an optimum for a missing bound."""
    for name in dict.fromkeys([*opt, *low, *high]):
        usual = opt.get(name) or high.get(name) or low.get(name)
        assert usual is not None
        opt.setdefault(name, usual)
        low.setdefault(name, opt[name])
        high.setdefault(name, opt[name])
    return low, opt, high


def _complete(
    network: Network,
    free: Sequence[TensorSpec],
    given: tuple[dict[str, Shape], dict[str, Shape], dict[str, Shape]],
    usual: Mapping[str, int],
) -> Profile:
    bounds = [_sizes(network, shapes, flag) for shapes, flag in zip(given, _FLAGS)]
    profile: Profile = {}
    for spec in free:
        axes = [
            (axis,) * 3 if isinstance(axis, int) else _axis(network, spec, index, axis, bounds, given, usual)
            for index, axis in enumerate(spec.shape)
        ]
        low, opt, high = (tuple(axis[k] for axis in axes) for k in range(3))
        if any(not a <= b <= c for a, b, c in axes):
            raise OptionError(
                f"the shapes of `{spec.name}` contradict one another",
                got=f"min {_dims(low)}, opt {_dims(opt)}, max {_dims(high)}",
                expected="min <= opt <= max on every axis",
                fix="order --minShapes, --optShapes and --maxShapes",
            )
        profile[spec.name] = Range(low, opt, high)
    return profile


def _sizes(network: Network, shapes: Mapping[str, Shape], flag: str) -> dict[str, int]:
    """Return the sizes of named axes that the shapes of a flag set; OptionError where they cannot be."""
    specs = {spec.name: spec for spec in network.inputs}
    held = Sizes(network.axes)
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in specs:
            raise OptionError(
                f"{flag} names an input that the graph does not have",
                got=name,
                expected=", ".join(f"{spec.name}:{_dims(spec.shape)}" for spec in network.inputs),
                fix=_example(network, flag),
            )
        try:
            held.take(f"{flag} of `{name}`", specs[name].shape, shape)
        except ArrayError as error:
            fix = error.fix or _example(network, flag)
            raise OptionError(error.what, got=error.got, expected=error.expected, fix=fix) from None
        sizes |= {axis: size for axis, size in zip(specs[name].shape, shape) if isinstance(axis, str)}
    return sizes


def _axis(
    network: Network,
    spec: TensorSpec,
    index: int,
    axis: str,
    bounds: Sequence[Mapping[str, int]],
    given: Sequence[Mapping[str, Shape]],
    usual: Mapping[str, int],
) -> tuple[int, int, int]:
    if spec.name in given[0]:
        return given[0][spec.name][index], given[1][spec.name][index], given[2][spec.name][index]
    if axis not in UNNAMED and axis in bounds[0]:
        return bounds[0][axis], bounds[1][axis], bounds[2][axis]
    limits = network.axes.get(axis)
    if limits is None and index == 0:
        limits = USUAL_BATCH
    if limits is None and axis in usual:
        limits = Axis(opt=usual[axis], min=usual[axis], max=usual[axis])
    if limits is None:
        raise OptionError(
            f"nothing says what sizes the axis `{axis or '?'}` of `{spec.name}` takes",
            got=f"{spec.name} {show(spec.shape)}",
            expected="sizes in the manifest, or given",
            fix=f"--minShapes={spec.name}:… --optShapes={spec.name}:… --maxShapes={spec.name}:…",
        )
    return limits.min, limits.opt, _most(limits, index)


def _most(axis: Axis, index: int) -> int:
    """Return the largest size of an axis; one without a limit gets twice its usual size, a batch eight at least."""
    if axis.max is not None:
        return axis.max
    most = max(axis.opt * 2, USUAL_BATCH.max or 0 if index == 0 else 0)
    return most - most % axis.multiple


def _dims(shape: Sequence[int | str]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def _example(network: Network, flag: str) -> str:
    """Return the flag with shapes that the network takes: one size for each free axis, wherever it occurs."""
    free = {axis for spec in network.inputs for axis in spec.shape if isinstance(axis, str)}
    usual = {axis: network.axes[axis].opt for axis in free if axis in network.axes}
    shapes = (
        spec.name + ":" + _dims([axis if isinstance(axis, int) else usual.get(axis, 1) for axis in spec.shape])
        for spec in network.inputs
        if spec.shape
    )
    return f"{flag}={','.join(shapes)}"


def _text(profile: Profile) -> str:
    return ", ".join(f"{name} {range_}" for name, range_ in profile.items())
