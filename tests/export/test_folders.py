"""A new folder appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dpmrt.errors import OutputError
from dpmrt.export.folders import check_target, new_folder


def written(folder: Path) -> list[str]:
    return ["marker", "below/weights", "engines/"]


def write(target: Path, text: str = "new", *, force: bool = False) -> None:
    with new_folder(target, marker="marker", written=written, force=force) as folder:
        (folder / "marker").write_text(text)


def test_appears_with_its_parents(tmp_path: Path) -> None:
    write(tmp_path / "a/b/bundle")
    assert (tmp_path / "a/b/bundle/marker").read_text() == "new"
    assert os.listdir(tmp_path / "a/b") == ["bundle"]


@pytest.mark.skipif(os.name == "nt", reason="the umask is of no account there")
def test_files_are_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    with new_folder(tmp_path / "bundle", marker="marker", written=written) as folder:
        (folder / "below").mkdir()
        for name in ("marker", "below/weights"):
            (folder / name).touch(mode=0o600)
    (tmp_path / "plain").touch()
    usual = (tmp_path / "plain").stat().st_mode
    assert {(tmp_path / "bundle" / name).stat().st_mode for name in ("marker", "below/weights")} == {usual}


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write(tmp_path / "bundle")
    assert os.listdir(tmp_path) == ["bundle"]


def test_an_older_bundle_needs_force(tmp_path: Path) -> None:
    write(tmp_path / "bundle", "old")
    (tmp_path / "bundle/engines").mkdir()
    (tmp_path / "bundle/engines/engine").write_text("of the old one")
    with pytest.raises(OutputError, match=r"the target exists already(.|\n)*pass --force"):
        write(tmp_path / "bundle")
    write(tmp_path / "bundle", force=True)
    assert os.listdir(tmp_path) == ["bundle"]
    assert os.listdir(tmp_path / "bundle") == ["marker"]
    assert (tmp_path / "bundle/marker").read_text() == "new"


def test_force_never_erases_anything_else(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letters").write_text("dear")
    with pytest.raises(OutputError, match=r"the target holds something else(.|\n)*will not erase it"):
        write(tmp_path / "home", force=True)
    assert (tmp_path / "home/letters").read_text() == "dear"


@pytest.mark.parametrize("name", ["notes.txt", "below/notes.txt", "engines.txt", "other/link"])
def test_force_never_erases_a_file_that_is_not_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "bundle", "old")
    path = tmp_path / "bundle" / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path) if name == "other/link" else path.write_text("dear")
    with pytest.raises(
        OutputError, match=f"the target holds something else\n  got:      {name} in(.|\n)*did not write"
    ):
        write(tmp_path / "bundle", force=True)
    assert (tmp_path / "bundle/marker").read_text() == "old"
    assert path.is_symlink() or path.read_text() == "dear"


def test_a_file_that_comes_while_the_new_one_is_made_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "bundle", "old")

    def late() -> None:
        with new_folder(tmp_path / "bundle", marker="marker", written=written, force=True) as folder:
            (folder / "marker").write_text("new")
            (tmp_path / "bundle/notes.txt").write_text("dear")

    with pytest.raises(OutputError, match=r"notes\.txt in"):
        late()
    assert sorted(os.listdir(tmp_path / "bundle")) == ["marker", "notes.txt"]


def test_a_file_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="the target is not a folder"):
        write(tmp_path / "file", force=True)
    with pytest.raises(OutputError, match=r"cannot write(.|\n)*file is not a folder"):
        write(tmp_path / "file/below")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), ValueError("x")])
@pytest.mark.parametrize("force", [False, True])
def test_a_failure_leaves_nothing(tmp_path: Path, error: BaseException, force: bool) -> None:
    target = tmp_path / "a/bundle"
    if force:
        write(target, "old")
    expected = OutputError if isinstance(error, OSError) else type(error)

    def fail() -> None:
        with new_folder(target, marker="marker", written=written, force=force) as folder:
            (folder / "marker").write_text("new")
            raise error

    with pytest.raises(expected) as caught:
        fail()
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
    if force:
        assert (target / "marker").read_text() == "old"
        assert os.listdir(tmp_path / "a") == ["bundle"]
    else:
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")])
def test_a_failure_between_the_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "bundle"
    write(target, "old")
    rename, renamed = Path.rename, []

    def failing(self: Path, to: Path) -> Path:
        renamed.append(to)
        if len(renamed) == 2:
            raise error
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        write(target, force=True)
    assert (target / "marker").read_text() == "old"
    assert os.listdir(tmp_path) == ["bundle"]


def test_unwritable_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(OutputError, match=r"cannot write(.|\n)*is read-only"):
        check_target(tmp_path / "a/bundle", marker="marker", written=written, force=False)
