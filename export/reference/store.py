"""Writing a trained model: a folder appears whole or not at all."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpmrt.errors import OutputError


@contextmanager
def new_folder(out: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a folder to write into, and move it to `out` when the block ends without an error.

    What stood at `out` is kept until then, and stays if the block fails. The target is checked before the block
    runs, so that a long training cannot end at a folder that refuses it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with new_folder(Path(place) / "model") as folder:
    ...         _ = (folder / "a.txt").write_text("a")
    ...     sorted(p.name for p in (Path(place) / "model").iterdir())
    ['a.txt']
    """
    target = Path(os.path.abspath(out))
    _check_target(target, force)
    made = [parent for parent in target.parents if not parent.exists()]
    staging = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        _remove_empty(made)
        raise OutputError(
            f"cannot write beside {target}",
            got=error.strerror,
            expected="a folder that this user may write to",
            fix="choose another folder with -o DIR",
        ) from error
    try:
        yield staging
        _share_mode(staging)
        _swap_in(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)
        raise


def library_versions(*names: str) -> dict[str, str]:
    """Installed version of each named distribution, for the record that goes with the weights."""
    return {name: importlib.metadata.version(name) for name in names}


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record in the order of its keys, so that the same record gives the same bytes."""
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _check_target(target: Path, force: bool) -> None:
    if target.is_file():
        raise OutputError(
            "the target is a file",
            got=target,
            expected="a folder, or a path that does not exist yet",
            fix="choose another folder with -o DIR",
        )
    if target.is_dir() and not force and any(target.iterdir()):
        raise OutputError(
            "the target folder is not empty",
            got=target,
            expected="an empty folder, or a path that does not exist yet",
            fix="choose another folder with -o DIR, or pass --force to replace this one",
        )


def _share_mode(folder: Path) -> None:
    # safetensors writes files for their owner alone, and a package built from them would keep that.
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _swap_in(staging: Path, target: Path) -> None:
    old = staging.with_name(f".{target.name}.{os.getpid()}.old.tmp")
    had_old = target.exists()
    if had_old:
        os.replace(target, old)
    try:
        os.replace(staging, target)
    except OSError:
        if had_old:
            os.replace(old, target)
        raise
    if had_old:
        shutil.rmtree(old, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
