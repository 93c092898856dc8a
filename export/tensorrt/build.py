"""`build_engine`: a bundle's graph into a TensorRT engine beside it, built once, found again."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from dpmrt import __version__
from dpmrt.engines import TensorSpec
from dpmrt.engines.built import (
    EngineManifest,
    EngineTensor,
    Flags,
    Flavour,
    Misfit,
    Request,
    build_lock,
    list_engines,
    misfits_of_request,
    read_engine,
    remembered_hash,
    write_engine,
)
from dpmrt.engines.built.schema import NetworkName
from dpmrt.errors import BundleError, IntegrityError
from dpmrt.export.tensorrt.memory import check_room
from dpmrt.export.tensorrt.messages import Event, Job
from dpmrt.export.tensorrt.request import Prepared, prepare
from dpmrt.export.tensorrt.worker import run_build

Say = Callable[[str], None]


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that is there now: its manifest, its plan, whether it was there before, and else why it was built."""

    manifest: EngineManifest
    plan: Path
    found: bool
    why: tuple[str, ...] = ()


def build_engine(
    bundle: str | Path,
    *,
    network: NetworkName = "unet",
    flavour: Flavour | None = None,
    target: str | None = None,
    min_shapes: Sequence[str] = (),
    opt_shapes: Sequence[str] = (),
    max_shapes: Sequence[str] = (),
    flags: Flags | None = None,
    timing_cache: str | Path | None = None,
    engines: str | Path | None = None,
    names: Mapping[str, str] | None = None,
    force: bool = False,
    progress: Callable[[Event], None] | None = None,
    say: Say | None = None,
) -> BuiltEngine:
    """Build the TensorRT engine of a bundle, or return the one that was built of the same graph in the same way.

    `target` is "device" (this GPU), "portable" (any, TensorRT-RTX alone) or such as "sm89,sm120"; the shapes are
    texts like trtexec's, one for each profile. `progress` gets the builder's phases, `say` a line when there is
    something to know. Nothing half-built is left, however the call ends.

        build_engine("digits", engines="out", min_shapes=["sample:1x1x16x16"], max_shapes=["sample:16x1x16x16"])
    """
    ready = prepare(
        bundle,
        network=network,
        flavour=flavour,
        target=target,
        min_shapes=min_shapes,
        opt_shapes=opt_shapes,
        max_shapes=max_shapes,
        flags=flags,
        timing_cache=timing_cache is not None,
        engines=engines,
        names=names,
    )
    return build_prepared(ready, timing_cache=timing_cache, force=force, progress=progress, say=say)


def build_prepared(
    ready: Prepared,
    *,
    timing_cache: str | Path | None = None,
    force: bool = False,
    progress: Callable[[Event], None] | None = None,
    say: Say | None = None,
) -> BuiltEngine:
    """Build what was prepared, or return it if it is there."""
    tell = say or (lambda line: None)
    folder, request = ready.folder, ready.request
    key = request.key()
    started = time.time()
    if not force and (there := find_built(folder, request)):
        return there
    with build_lock(folder, key, lambda: tell("another process builds this engine; waiting for it")):
        # Whoever held the lock may have built it: also where it was forced, if that began after this call.
        there = find_built(folder, request)
        if there and (not force or there.manifest.facts.get("finished", 0.0) > started):  # type: ignore[operator]
            return there
        why = why_anew(folder, request, force=force)
        for line in why:
            tell(line)
        _sweep(folder, key)
        check_room(ready.source_bytes, folder)
        manifest, plan = _build(ready, key, timing_cache, progress)
    return BuiltEngine(manifest, plan, False, why)


def find_built(folder: Path, request: Request) -> BuiltEngine | None:
    """Return the engine of exactly this request, its plan checked; None if there is none that is whole."""
    try:
        manifest, plan = read_engine(folder, request.key())
    except BundleError:
        return None
    return BuiltEngine(manifest, plan, True)


def why_anew(folder: Path, request: Request, *, force: bool = False) -> tuple[str, ...]:
    """Return why an engine is built: what differs from the nearest one that is there, field by field."""
    key = request.key()
    if force and find_built(folder, request):
        return ("building again, as --force asks",)
    others: list[tuple[list[Misfit], str]] = []
    for entry in list_engines(folder):
        if entry.key == key:
            try:
                read_engine(folder, key)
            except BundleError as error:
                return (f"building anew: {error.what} (got {error.got}, expected {error.expected})",)
        elif entry.manifest is not None and entry.manifest.request.network == request.network:
            others.append((misfits_of_request(entry.manifest.request, request), entry.key))
    if not others:
        return (f"building: no engine of the {request.network} is in {folder}",)
    differences, nearest = min(others, key=lambda other: (len(other[0]), other[1]))
    return (
        f"building anew: the nearest engine, {nearest}, differs",
        *(f"  {misfit.field}: {misfit.engine} there, {misfit.here} wanted" for misfit in differences),
    )


def _build(
    ready: Prepared,
    key: str,
    timing_cache: str | Path | None,
    progress: Callable[[Event], None] | None,
) -> tuple[EngineManifest, Path]:
    folder, request = ready.folder, ready.request
    scratch = folder / f".{key}.{os.urandom(4).hex()}.tmp"
    log = folder / f"{key}.log"
    job = Job(
        request=request,
        graph=str(ready.graph.resolve()),
        plan=str(scratch.resolve()),
        log=str(log.resolve()),
        parent=os.getpid(),
        timing_cache=str(Path(timing_cache).resolve()) if timing_cache is not None else None,
    )
    start = time.perf_counter()
    with _logged(log), _removed(scratch):
        built = run_build(job, progress)
        _check_unchanged(ready)
        return write_engine(
            folder,
            request,
            scratch,
            inputs=_named(built.inputs, ready.network.inputs),
            outputs=_named(built.outputs, ready.network.outputs),
            facts={
                "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "dpmrt": __version__,
                "layers": built.layers,
                "parse_seconds": built.parse_seconds,
                "build_seconds": built.build_seconds,
                "seconds": round(time.perf_counter() - start, 3),
                "peak_bytes": built.peak_bytes,
                "finished": time.time(),
            },
        )


def _named(tensors: tuple[EngineTensor, ...], declared: tuple[TensorSpec, ...]) -> tuple[EngineTensor, ...]:
    """Return an engine's tensors with the manifest's names of axes: TensorRT knows those of the inputs alone."""
    shapes = {spec.name: spec.shape for spec in declared}
    named = []
    for tensor in tensors:
        known = shapes.get(tensor.name, ())
        if len(known) == len(tensor.shape):
            shape = tuple(ours if isinstance(axis, str) else axis for axis, ours in zip(tensor.shape, known))
            tensor = EngineTensor(tensor.name, tensor.dtype, shape)
        named.append(tensor)
    return tuple(named)


def _check_unchanged(ready: Prepared) -> None:
    """Refuse an engine whose graph was written to while it was built: nobody knows which one it was made from."""
    for name, digest in ready.request.source.items():
        now = remembered_hash(ready.bundle.root / name)
        if now != digest:
            raise IntegrityError(
                f"{name} changed while the engine was built",
                got=f"SHA-256 {now}",
                expected=f"SHA-256 {digest}",
                fix="build again once nothing writes to the bundle",
            )


@contextlib.contextmanager
def _removed(scratch: Path) -> Iterator[None]:
    try:
        yield
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def _logged(log: Path) -> Iterator[None]:
    """Keep the builder's log, with what the library printed beside it, where the build fails; not if cancelled."""
    printed = Path(f"{log}.out")
    try:
        yield
    except Exception:
        with contextlib.suppress(OSError):
            text = printed.read_bytes()
            if text.strip():
                with log.open("ab") as stream:
                    stream.write(b"\nprinted by the process:\n" + text)
        raise
    except BaseException:
        log.unlink(missing_ok=True)
        raise
    else:
        log.unlink(missing_ok=True)
    finally:
        printed.unlink(missing_ok=True)


def _sweep(folder: Path, key: str) -> None:
    """Delete what a killed build of this engine left; the lock is held, so that nobody is at it."""
    for left in folder.glob(f".{key}.*.tmp"):
        left.unlink(missing_ok=True)
