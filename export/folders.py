"""Writing a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeAlias

from dpmrt.errors import OutputError

Written: TypeAlias = Callable[[Path], Collection[str]]
"""Says what of a folder an earlier run wrote: the names of files, and with a slash at the end of whole folders.

Nothing at all, when the marker in the folder is not one that dpmrt wrote.
"""


def check_target(target: Path, *, marker: str, written: Written, force: bool) -> None:
    """Raise OutputError unless a new folder may be put at `target`.

    With `force` a folder may be replaced that holds `marker`, and beside it nothing but what `written` names; any
    other folder with something in it never is.
    """
    try:
        if target.exists() and not target.is_dir():
            raise OutputError(
                "the target is not a folder",
                got=target,
                expected="a new or empty folder",
                fix="choose another target",
            )
        filled = target.is_dir() and any(target.iterdir())
        foreign = _foreign(target, written(target)) if filled and (target / marker).is_file() else None
    except PermissionError as error:
        raise OutputError(f"cannot look at {target}", got=error.strerror, fix="choose another target") from None
    place = next(parent for parent in target.absolute().parents if parent.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise OutputError(
            f"cannot write {target}",
            got=f"{place} is {'read-only' if place.is_dir() else 'not a folder'}",
            expected="a folder that this user may write to",
            fix="choose another target",
        )
    if filled and not (target / marker).is_file():
        raise OutputError(
            "the target holds something else",
            got=f"{target}, not empty and without {marker}",
            expected=f"a new or empty folder, or one with {marker}",
            fix="choose another target; --force will not erase it",
        )
    if foreign is not None:
        raise OutputError(
            "the target holds something else",
            got=f"{foreign} in {target}, which dpmrt did not write",
            expected="a new or empty folder, or one with nothing but what dpmrt wrote",
            fix="choose another target, or move the file away; --force will not erase it",
        )
    if filled and not force:
        raise OutputError(
            "the target exists already",
            got=target,
            expected="a new or empty folder",
            fix="pass --force to replace it with all that is in it, or choose another target",
        )


def _foreign(target: Path, written: Collection[str]) -> str | None:
    """Return a file that an earlier run did not write, if there is one; a link is a file."""
    folders = tuple(name for name in written if name.endswith("/"))
    for root, below, files in os.walk(target, onerror=_raise):
        links = (name for name in below if Path(root, name).is_symlink())
        for name in sorted((*files, *links)):
            path = Path(root, name).relative_to(target).as_posix()
            if path not in written and not path.startswith(folders):
                return path
    return None


def _raise(error: OSError) -> None:
    raise error


@contextlib.contextmanager
def new_folder(target: Path, *, marker: str, written: Written, force: bool = False) -> Iterator[Path]:
    """Yield a scratch folder beside `target`, and put it in the target's place when the block ends well.

    The target is checked before the block runs. On any exception the scratch folder goes and what stood at
    `target` stays; OSError becomes OutputError. Files get the permissions that the umask gives to new ones.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     with new_folder(Path(home) / "bundle", marker="a.txt", written=lambda folder: ["a.txt"]) as folder:
    ...         _ = (folder / "a.txt").write_text("whole")
    ...     [path.name for path in Path(home).iterdir()]
    ['bundle']
    """
    target = target.resolve()
    check_target(target, marker=marker, written=written, force=force)
    made = [parent for parent in target.parents if not parent.exists()]
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        scratch.mkdir(parents=True)
        yield scratch
        _make_readable(scratch)
        _sync(scratch)
        check_target(target, marker=marker, written=written, force=force)
        _swap(scratch, target)
        made = []
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {target}",
            got=error.strerror or error,
            expected="a folder that takes all of it",
            fix="free some space, or choose a target that this user may write to",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _swap(scratch: Path, target: Path) -> None:
    if not target.exists():
        scratch.rename(target)
        _sync_entry(target.parent)
        return
    previous = scratch.with_suffix(".previous.tmp")
    try:
        target.rename(previous)
        scratch.rename(target)
        _sync_entry(target.parent)
    finally:
        if previous.exists() and not target.exists():
            previous.rename(target)
        shutil.rmtree(previous, ignore_errors=True)


def _make_readable(folder: Path) -> None:
    # safetensors writes files for their owner alone, and a package built from them would keep that.
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _sync(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _sync_entry(Path(root, name))
        _sync_entry(Path(root))


def _sync_entry(path: Path) -> None:
    # Windows cannot open a folder; it orders renames by itself.
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
