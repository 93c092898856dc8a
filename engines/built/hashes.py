"""SHA-256 of large files, remembered between processes, so that gigabytes are hashed once.

A hash is remembered under all that changes when a file does: path, size, inode, and the times of its last
modification and of its last change, the second of which no program can set. A file that is younger than the clock of
its file system can tell apart is not remembered.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from dpmrt.engines.manifest import hash_file
from dpmrt.errors import OutputError
from dpmrt.files import atomic_write

#: smaller files are hashed as fast as they are looked up
_SMALL = 1 << 20
#: two changes of a file within this time may bear the same stamp: a tick of the kernel's clock, with room to spare
_TICK = 0.05
_MOST = 512
CACHE_VARIABLE = "XDG_CACHE_HOME"


def remembered_hash(path: Path) -> str:
    """Return the SHA-256 of a file, from memory if it is known not to have changed."""
    path = Path(path)
    before = path.stat()
    if before.st_size < _SMALL:
        return hash_file(path)
    known = _read().get(_place(path))
    if known is not None and known[:-1] == _stamp(before):
        return str(known[-1])
    settled = _settle(before)
    digest = hash_file(path)
    if settled and _stamp(path.stat()) == _stamp(before):
        _add(path, before, digest)
    return digest


def remember_hash(path: Path, digest: str, earlier: os.stat_result) -> None:
    """Note a hash that was worked out before the file was renamed, and after it was last written to.

    `earlier` is the file's state before it was hashed. A rename changes nothing but the time of change.
    """
    now = Path(path).stat()
    same = _stamp(now)[:3] == _stamp(earlier)[:3]
    if same and now.st_size >= _SMALL and _settle(now):
        _add(Path(path), now, digest)


def memo_path() -> Path:
    """Return where hashes are remembered: `dpmrt/hashes.json` in the user's cache folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache") / "dpmrt" / "hashes.json"


def _settle(stat: os.stat_result) -> bool:
    """Wait until a further change would be seen; False where the file system's clock is too coarse for that."""
    newest = max(stat.st_mtime_ns, stat.st_ctime_ns) / 1e9
    age = time.time() - newest
    if age < 0 or (stat.st_ctime_ns % 1_000_000_000 == 0 and age < 2.5):
        return False
    if age < _TICK:
        time.sleep(_TICK - age)
    return True


def _place(path: Path) -> str:
    return os.path.realpath(path)


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _read() -> dict[str, list[int | str]]:
    """Return what is remembered; a memory that cannot be read is none."""
    try:
        known = json.loads(memo_path().read_bytes())
    except (OSError, ValueError, RuntimeError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {
        path: entry
        for path, entry in known.items()
        if isinstance(entry, list)
        and [type(value) for value in entry] == [int, int, int, int, str]
        and len(entry[-1]) == 64
    }


def _add(path: Path, stat: os.stat_result, digest: str) -> None:
    entries = _read()
    entries.pop(_place(path), None)
    entries[_place(path)] = [*_stamp(stat), digest]
    recent = dict(list(entries.items())[-_MOST:])
    # Two processes at once may lose an entry of one another; it is worked out again. No memory at all is only slower.
    with contextlib.suppress(OutputError, OSError, RuntimeError):
        memo_path().parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(memo_path()) as stream:
            stream.write(json.dumps(recent).encode())
