"""A folder of built engines: `<key>.plan` with its sidecar `<key>.json`, written so that nothing half-done loads."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dpmrt.engines.built.hashes import remember_hash, remembered_hash
from dpmrt.engines.built.schema import (
    ENGINE_FORMAT,
    ENGINE_VERSION,
    KEY_PATTERN,
    EngineManifest,
    EngineTensor,
    Request,
)
from dpmrt.engines.json_file import write_json
from dpmrt.engines.manifest import record_file
from dpmrt.errors import BackendError, BundleError, IntegrityError, ManifestError, OutputError

ENGINES_FOLDER = "engines"
ENGINES_VARIABLE = "DPMRT_ENGINES"
_BUILD_AGAIN = "build it again: dpmrt build BUNDLE --force"


@dataclass(frozen=True)
class Entry:
    """An engine in a folder, by its sidecar: what it says, or why it says nothing."""

    key: str
    sidecar: Path
    manifest: EngineManifest | None
    problem: BundleError | None = None


def engines_folder(bundle: Path, folder: str | Path | None = None) -> Path:
    """Return where a bundle's engines are: the folder given, or DPMRT_ENGINES, or `engines/` within the bundle."""
    given = folder or os.environ.get(ENGINES_VARIABLE)
    return Path(given) if given else Path(bundle) / ENGINES_FOLDER


def list_engines(folder: Path) -> list[Entry]:
    """Return every engine whose sidecar lies in the folder, by key; plans are not looked at."""
    found = []
    for path in sorted(Path(folder).glob("*.json")):
        if not re.fullmatch(KEY_PATTERN, path.stem):
            continue
        try:
            found.append(Entry(path.stem, path, _read_sidecar(path)))
        except BundleError as error:
            found.append(Entry(path.stem, path, None, error))
    return found


def read_engine(folder: Path, key: str, *, check: bool = True) -> tuple[EngineManifest, Path]:
    """Return the sidecar and the plan's path of an engine; with `check`, hold the plan against its size and hash.

    Raises ManifestError for a sidecar that says something else, BundleError for what is missing, IntegrityError for
    a plan that was truncated or altered.
    """
    manifest = _read_sidecar(Path(folder) / f"{key}.json")
    plan = Path(folder) / f"{key}.plan"
    try:
        size = plan.stat().st_size
    except OSError as error:
        raise BundleError(
            "the plan of a built engine is missing", got=error, expected=plan.name, fix=_BUILD_AGAIN
        ) from None
    if size != manifest.plan.bytes:
        what = "is truncated" if size < manifest.plan.bytes else "is longer than it was"
        raise IntegrityError(
            f"{plan.name} {what}", got=f"{size} bytes", expected=f"{manifest.plan.bytes} bytes", fix=_BUILD_AGAIN
        )
    if check:
        try:
            digest = remembered_hash(plan)
        except OSError as error:
            raise BundleError(f"{plan.name} cannot be read", got=error, expected="a readable file") from None
        if digest != manifest.plan.sha256:
            raise IntegrityError(
                f"{plan.name} was altered",
                got=f"SHA-256 {digest}",
                expected=f"SHA-256 {manifest.plan.sha256}",
                fix=_BUILD_AGAIN,
            )
    return manifest, plan


def write_engine(
    folder: Path,
    request: Request,
    scratch: Path,
    *,
    inputs: tuple[EngineTensor, ...],
    outputs: tuple[EngineTensor, ...],
    facts: dict[str, str | int | float],
) -> tuple[EngineManifest, Path]:
    """Move a finished plan from `scratch`, a file in the same folder, to its place, and write its sidecar.

    The sidecar goes first and comes last: at every moment, a sidecar stands beside the plan that it describes.
    """
    key = request.key()
    plan, sidecar = folder / f"{key}.plan", folder / f"{key}.json"
    before = scratch.stat()
    record = record_file(scratch)
    manifest = EngineManifest(
        format="dpmrt-engine",
        version=ENGINE_VERSION,
        key=key,
        request=request,
        plan=record,
        inputs=inputs,
        outputs=outputs,
        facts=facts,
    )
    try:
        sidecar.unlink(missing_ok=True)
        os.replace(scratch, plan)
        remember_hash(plan, record.sha256, before)
    except OSError as error:
        raise OutputError("the engine cannot be put in its place", got=error, expected=f"to write {plan}") from error
    write_json(sidecar, manifest)
    return manifest, plan


def remove_engine(folder: Path, key: str) -> None:
    """Delete an engine, its sidecar first."""
    for suffix in (".json", ".plan"):
        (Path(folder) / f"{key}{suffix}").unlink(missing_ok=True)


@contextlib.contextmanager
def build_lock(folder: Path, key: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the right to build an engine; `waiting` is called once if another process has it, before the wait.

    The lock is the system's (flock), so that it goes with the process that holds it, however that ends. Its file
    stays: to delete it would let a third process lock another file of the same name.
    """
    try:
        import fcntl
    except ImportError:
        raise BackendError(
            "engines can be built where files can be locked alone", got="no fcntl", expected="Linux"
        ) from None
    path = Path(folder) / f".{key}.lock"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        stream = path.open("w")
    except OSError as error:
        raise OutputError(
            "engines cannot be kept here",
            got=error,
            expected=f"a folder that can be written to: {folder}",
            fix=f"give another with --engines DIR, or with {ENGINES_VARIABLE}",
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _read_sidecar(path: Path) -> EngineManifest:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(
            "no such engine",
            got=f"no {path.name} in {path.parent}",
            expected="an engine built here",
            fix=_BUILD_AGAIN,
        ) from None
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read", got=error, expected="a readable file") from None
    try:
        head = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{path.name} is not JSON", got=error, expected="a JSON object", fix=_BUILD_AGAIN
        ) from None
    what = head.get("format") if isinstance(head, dict) else type(head).__name__
    if what != ENGINE_FORMAT:
        raise ManifestError(
            f"{path.name}: `format` is not a built engine's",
            got=repr(what),
            expected=repr(ENGINE_FORMAT),
            fix=_BUILD_AGAIN,
        )
    if head.get("version") is not ENGINE_VERSION:
        raise ManifestError(
            f"{path.name}: unknown `version`",
            got=repr(head.get("version")),
            expected=str(ENGINE_VERSION),
            fix=f"update dpmrt, or {_BUILD_AGAIN}",
        )
    try:
        manifest = msgspec.json.decode(raw, type=EngineManifest)
    except msgspec.DecodeError as error:
        raise ManifestError(
            f"{path.name} does not follow the schema",
            got=error,
            expected=f"the fields of version {ENGINE_VERSION}",
            fix=_BUILD_AGAIN,
        ) from None
    for what, key in (("the key of its request", manifest.request.key()), ("its file's name", path.stem)):
        if key != manifest.key:
            raise IntegrityError(
                f"{path.name}: `key` is not {what}", got=manifest.key, expected=key, fix=_BUILD_AGAIN
            )
    return manifest
