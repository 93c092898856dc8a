"""Whether a built engine may run here, for this graph and these shapes; and, field by field, why not."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dpmrt.engines.built.schema import OLDEST_PORTABLE, EngineManifest, Library, Profile, Request
from dpmrt.engines.built.store import list_engines, read_engine
from dpmrt.errors import BackendError, BundleError

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Machine:
    """What decides here which engines load; None is what is not there."""

    library: Library | None
    gpu: str | None
    compute_capability: str | None
    platform: str


@dataclass(frozen=True)
class Misfit:
    """One field of an engine that does not suit: what the engine has, what is here, what to do."""

    field: str
    engine: str
    here: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field}: built for {self.engine}, here {self.here}"


_REBUILD = "build one here: dpmrt build BUNDLE"


def this_platform() -> str:
    """Return the system and the processor that engines are tied to, as in linux-x86_64."""
    return f"{sys.platform}-{platform.machine()}"


def misfits(request: Request, machine: Machine) -> list[Misfit]:
    """Return what keeps an engine from loading on a machine; empty if nothing does."""
    found = list(_of_library(request, machine))
    if request.target.platform != machine.platform:
        found.append(Misfit("platform", request.target.platform, machine.platform, _REBUILD))
    found += _of_gpu(request, machine)
    return found


def misfits_of_source(request: Request, network: str, source: Mapping[str, str]) -> list[Misfit]:
    """Return where an engine was made from another network or other files than `source`, hashes by path."""
    fix = "build it again: dpmrt build BUNDLE"
    if request.network != network:
        return [Misfit("network", request.network, network, f"dpmrt build BUNDLE --network {network}")]
    found = []
    for name in sorted({*request.source, *source}):
        there, here = request.source.get(name), source.get(name)
        if there != here:
            found.append(Misfit(f"source {name}", _short(there), _short(here), fix))
    return found


def misfits_of_shapes(manifest: EngineManifest, shapes: Shapes) -> list[Misfit]:
    """Return the inputs whose shapes no profile of an engine covers all at once."""
    if choose_profile(manifest, shapes) is not None:
        return []
    found = []
    profiles = manifest.request.profiles
    for spec in manifest.inputs:
        shape = shapes.get(spec.name)
        ranges = [profile[spec.name] for profile in profiles if spec.name in profile]
        if shape is None or (_admits(spec.shape, shape) and (not ranges or any(r.takes(shape) for r in ranges))):
            continue
        built = " or ".join(str(r) for r in ranges) or _show(spec.shape)
        flags = f"--minShapes={spec.name}:… --optShapes={spec.name}:{_show(shape)} --maxShapes={spec.name}:…"
        found.append(Misfit(f"shape of {spec.name}", built, _show(shape), f"dpmrt build BUNDLE {flags}"))
    if not found:
        here = ", ".join(f"{name}:{_show(shape)}" for name, shape in shapes.items())
        fix = "build one profile that covers them together"
        found.append(Misfit("shapes", f"{len(profiles)} profiles, none of which has them together", here, fix))
    return found


def misfits_of_request(found: Request, wanted: Request) -> list[Misfit]:
    """Return every field in which two requests differ, as `field: what an engine has, what is wanted`.

    >>> from dpmrt.engines.built import Flags, Target
    >>> rtx, anywhere = Library("tensorrt_rtx", "1.7.1"), Target("portable", "linux-x86_64")
    >>> one = Request("unet", {}, "fp32", rtx, anywhere)
    >>> two = Request("unet", {}, "fp32", rtx, anywhere, flags=Flags(optimization_level=5))
    >>> [(misfit.field, misfit.engine, misfit.here) for misfit in misfits_of_request(one, two)]
    [('flags.optimization_level', 'none', '5')]
    """
    there, here = _leaves(msgspec.to_builtins(found)), _leaves(msgspec.to_builtins(wanted))
    # Profiles are compared as a whole: number by number they say little.
    there = {field: value for field, value in there.items() if not field.startswith("profiles")}
    here = {field: value for field, value in here.items() if not field.startswith("profiles")}
    there["profiles"], here["profiles"] = _profiles(found.profiles), _profiles(wanted.profiles)
    return [
        Misfit(field, there.get(field, "none"), here.get(field, "none"), _REBUILD)
        for field in dict.fromkeys([*there, *here])
        if there.get(field, "none") != here.get(field, "none")
    ]


def choose_profile(manifest: EngineManifest, shapes: Shapes) -> tuple[int, float] | None:
    """Return the profile that suits the shapes best, with its distance; None where none covers them.

    The distance is the sum over all axes of |log2(size / optimum)|: 0 at the optimum, 1 for one axis doubled. An
    engine without free axes has one profile, which covers its only shapes.
    """
    declared = {spec.name: spec.shape for spec in manifest.inputs}
    if any(name not in declared or not _admits(declared[name], shape) for name, shape in shapes.items()):
        return None
    best: tuple[int, float] | None = None
    for index, profile in enumerate(manifest.request.profiles or ({},)):
        if all(profile[name].takes(shape) for name, shape in shapes.items() if name in profile):
            distance = _distance(profile, shapes)
            if best is None or distance < best[1]:
                best = (index, distance)
    return best


def find_engine(
    folder: Path,
    network: str,
    source: Mapping[str, str],
    machine: Machine,
    shapes: Shapes | None = None,
    *,
    bundle: str | Path = "BUNDLE",
) -> tuple[EngineManifest, Path]:
    """Return the engine in the folder that suits graph, machine and shapes best, its plan checked.

    Tuned for this GPU goes before portable, and a near optimum before a far one. Raises a BackendError that says of
    every engine why it does not suit, and how to build one that does.
    """
    refused: list[tuple[str, list[str]]] = []
    suited: list[EngineManifest] = []
    for entry in list_engines(folder):
        if entry.manifest is None:
            refused.append((entry.key, [_one_line(entry.problem)]))
            continue
        request = entry.manifest.request
        why = [*misfits_of_source(request, network, source), *misfits(request, machine)]
        if shapes is not None:
            why += misfits_of_shapes(entry.manifest, shapes)
        if why:
            refused.append((entry.key, [str(misfit) for misfit in why]))
        else:
            suited.append(entry.manifest)
    for manifest in sorted(suited, key=lambda one: _preference(one, shapes)):
        try:
            return read_engine(folder, manifest.key)
        except BundleError as error:
            refused.append((manifest.key, [_one_line(error)]))
    raise _none_fits(Path(folder), network, machine, refused, bundle)


def _preference(manifest: EngineManifest, shapes: Shapes | None) -> tuple[bool, bool, float, str]:
    request = manifest.request
    chosen = choose_profile(manifest, shapes) if shapes is not None else None
    distance = chosen[1] if chosen else 0.0
    # A plan without weights runs only once it was refitted, so it is the last resort.
    return request.flags.strip_weights, request.target.kind != "device", distance, manifest.key


def _none_fits(
    folder: Path, network: str, machine: Machine, refused: list[tuple[str, list[str]]], bundle: str | Path
) -> BackendError:
    command = f"dpmrt build {bundle}" + (f" --network {network}" if network != "unet" else "")
    if not refused:
        return BackendError(
            f"no TensorRT engine was built for the {network}", got=f"none in {folder}", expected="one", fix=command
        )
    lines = [f"{key}: " + "\n  ".join(why) for key, why in refused]
    return BackendError(
        f"none of {len(refused)} TensorRT engines suits the {network} here" if len(refused) > 1
        else f"the TensorRT engine that is there does not suit the {network} here",
        got="\n".join(lines),
        expected=f"an engine for {_describe(machine)}",
        fix=command,
    )  # fmt: skip


def _of_library(request: Request, machine: Machine) -> Iterator[Misfit]:
    built, here = request.library, machine.library
    if here is None:
        extra = "rtx" if built.flavour == "tensorrt_rtx" else "tensorrt"
        yield Misfit("library", str(built), "none installed", f"pip install 'dpmrt[{extra}]'")
    elif built.flavour != here.flavour:
        yield Misfit("library.flavour", str(built), str(here), _REBUILD)
    elif built.version != here.version and not _upward(request, here):
        yield Misfit("library.version", built.version, here.version, _REBUILD)


def _upward(request: Request, here: Library) -> bool:
    """Return whether the engine was built to load in newer versions too, of the same major one."""
    built = request.library
    newer = built.numbers[0] == here.numbers[0] and here.numbers >= built.numbers
    return request.flags.version_compatible and newer


def _of_gpu(request: Request, machine: Machine) -> Iterator[Misfit]:
    target, here = request.target, machine.compute_capability
    if machine.gpu is None or here is None:
        yield Misfit("gpu", str(target), "no GPU", "run it where there is one, or engine='onnxruntime'")
        return
    if target.kind == "portable":
        if not target.capabilities and _numbers(here) < _numbers(OLDEST_PORTABLE):
            yield Misfit("compute_capability", f"{OLDEST_PORTABLE} or newer", here, "engine='onnxruntime'")
        if target.capabilities and here not in target.capabilities:
            fix = f"dpmrt build BUNDLE --target {','.join(_sm(cc) for cc in (*target.capabilities, here))}"
            yield Misfit("target.capabilities", ", ".join(target.capabilities), here, fix)
        return
    kind = request.flags.hardware_compatibility
    if kind == "ampere_plus":
        if _numbers(here) < (8, 0):
            yield Misfit("compute_capability", "8.0 or newer", here, _REBUILD)
        return
    if target.compute_capability != here:
        yield Misfit("compute_capability", target.compute_capability or "unknown", here, _REBUILD)
    if target.gpu != machine.gpu and kind == "none":
        yield Misfit("gpu", target.gpu or "unknown", machine.gpu, _REBUILD)


def _distance(profile: Profile, shapes: Shapes) -> float:
    pairs = ((size, opt) for name, shape in shapes.items() if name in profile for size, opt in
             zip(shape, profile[name].opt))  # fmt: skip
    return sum(abs(math.log2(size / opt)) for size, opt in pairs if size and opt)


def _admits(declared: Sequence[int | str], shape: Sequence[int]) -> bool:
    same = len(declared) == len(shape)
    return same and all(axis == size for axis, size in zip(declared, shape) if isinstance(axis, int))


def _leaves(value: object, field: str = "") -> dict[str, str]:
    """Return the fields of nested dictionaries as text, by their dotted path."""
    if isinstance(value, dict):
        return {path: text for key, below in value.items() for path, text in _leaves(below, f"{field}{key}.").items()}
    name = field[:-1]
    if value is None or value in ([], ()):
        return {name: "none"}
    text = ", ".join(str(part) for part in value) if isinstance(value, (list, tuple)) else str(value)
    return {name: _short(text) if name.startswith("source.") else text}


def _profiles(profiles: Sequence[Profile]) -> str:
    return "; ".join(", ".join(f"{name} {r}" for name, r in sorted(p.items())) for p in profiles) or "none"


def _describe(machine: Machine) -> str:
    gpu = f"{machine.gpu} ({machine.compute_capability})" if machine.gpu else "no GPU"
    return f"{machine.library or 'no TensorRT'}, {gpu}, {machine.platform}"


def _one_line(error: BundleError | None) -> str:
    if error is None:
        return "unreadable"
    return error.what + (f" ({error.got}, expected {error.expected})" if error.got is not None else "")


def _show(shape: Sequence[int | str]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"


def _short(digest: str | None) -> str:
    return "none" if digest is None else f"{digest[:12]}…" if len(digest) == 64 else digest


def _numbers(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)


def _sm(capability: str) -> str:
    return "sm" + capability.replace(".", "")
