from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpp_golden
import cpp_guided
import numpy as np
import pytest
from cpp_building import shared_place
from editing_files import write_pixels
from filelock import FileLock
from tiny_bundles import Make, write_bundle


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "plain")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "labelled", labels=True)


@pytest.fixture
def make_bundle(tmp_path: Path) -> Make:
    def make(**variant: Any) -> Path:
        return write_bundle(tmp_path / "bundle", **variant)

    return make


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_pixels(tmp_path / "in.png", np.arange(64).reshape(8, 8, 1) * 4)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return write_pixels(tmp_path / "mask.png", np.repeat([[255], [0]], 32, axis=1).reshape(8, 8, 1))


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of one test run share, for what is built once."""
    return shared_place(tmp_path_factory)


def written_once(folder: Path, write: Callable[[Path], None]) -> Path:
    """Return a folder that one of the workers writes, and the others wait for."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            write(folder)
    return folder


@pytest.fixture(scope="session")
def golden(place: Path) -> Path:
    """Trajectories that Python wrote, for the C++ runtime to replay."""
    return written_once(place / "cpp-golden", cpp_golden.write_golden)


@pytest.fixture(scope="session")
def guided(place: Path) -> Path:
    """Guided ones."""
    return written_once(place / "cpp-guided", cpp_guided.write_guided)
