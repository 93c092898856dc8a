"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dpmrt.errors import OutputError

_REASONS = {
    errno.ENOENT: ("the folder does not exist", "create it first, or choose another path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EISDIR: ("there is a folder of this name", "give the name of a file"),
    errno.EACCES: ("no permission to write there", "choose a folder that you may write to"),
    errno.EPERM: ("no permission to write there", "choose a folder that you may write to"),
    errno.EROFS: ("the file system is read-only", "choose another folder"),
    errno.ENOSPC: ("the disk is full", "free some space, or choose another disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another disk"),
    errno.EFBIG: ("the file is larger than is allowed here", "write less, or choose another disk"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter name"),
}


def check_writable(path: str | Path) -> Path:
    """Return the path if a file could be written there now; raises OutputError, and leaves nothing behind.

    >>> check_writable("no-such-folder/out.png")
    Traceback (most recent call last):
    dpmrt.errors.OutputError: the folder does not exist
      got:      no-such-folder/out.png
      fix:      create it first, or choose another path
    """
    path = Path(path)
    with _explained(path):
        _refuse_folder(path)
        trial = _scratch_name(_target(path))
        # Creating a file is the only question that every file system answers truthfully.
        trial.touch(exist_ok=False)
        trial.unlink()
    return path


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a binary stream whose contents become `path` when the block ends well, and vanish otherwise.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "a.bin") as stream:
    ...         _ = stream.write(b"whole")
    ...     (Path(folder) / "a.bin").read_bytes()
    b'whole'
    """
    path = Path(path)
    with _explained(path):
        _refuse_folder(path)
        target = _target(path)
        scratch = _scratch_name(target)
        try:
            with scratch.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(scratch, target)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


def _target(path: Path) -> Path:
    """Return the file that is replaced: a link stays a link, and what it points to is written."""
    return Path(os.path.realpath(path))


def _scratch_name(path: Path) -> Path:
    return path.with_name(f".{path.name[:200]}.{os.urandom(4).hex()}.tmp")


def _refuse_folder(path: Path) -> None:
    if path.is_dir() or not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        what, fix = _REASONS.get(error.errno or 0, (f"the file cannot be written: {error.strerror or error}", None))
        raise OutputError(what, got=path, fix=fix) from error
