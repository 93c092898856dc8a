"""A file is written whole or not at all, and a refusal says why."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dpmrt.errors import OutputError
from dpmrt.files import atomic_write, check_writable


def test_a_file_appears_whole_with_usual_permissions(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with atomic_write(target) as stream:
        stream.write(b"new")
        assert not target.exists()
    plain = tmp_path / "plain"
    plain.touch()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode == plain.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "plain"]


def test_a_link_into_a_folder_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none/a.bin")
    with pytest.raises(OutputError, match="the folder does not exist"):
        check_writable(tmp_path / "link")
    (tmp_path / "none").mkdir()
    with atomic_write(check_writable(tmp_path / "link")) as stream:
        stream.write(b"new")
    assert (tmp_path / "none/a.bin").read_bytes() == b"new"


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("bad"), SystemExit(3)])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def fail_half_way() -> None:
        with atomic_write(target) as stream:
            stream.write(b"half")
            raise failure

    with pytest.raises(type(failure)):
        fail_half_way()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "the file cannot be written: "),
    ],
)
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_what_the_disk_refuses_is_explained_and_cleaned_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str, where: str
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, where, refuse)
    with pytest.raises(OutputError, match=what) as caught, atomic_write(tmp_path / "a.bin") as stream:
        stream.write(b"x")
    assert str(tmp_path / "a.bin") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [check_writable, lambda path: atomic_write(path).__enter__()])
def test_impossible_targets_are_explained(tmp_path: Path, write: Any) -> None:
    (tmp_path / "file").touch()
    wrong = {"no/a": "the folder does not exist", "file/a": "not a folder", ".": "folder of this name"}
    for name, what in wrong.items():
        with pytest.raises(OutputError, match=what):
            write(tmp_path / name)
    with pytest.raises(OutputError, match="name is too long"):
        write(tmp_path / ("n" * 300))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission_is_explained(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="no permission"):
            check_writable(tmp_path / "a")
    finally:
        tmp_path.chmod(0o700)


def test_checking_leaves_nothing_behind_and_keeps_what_is_there(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("kept")
    check_writable(target)
    assert target.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
