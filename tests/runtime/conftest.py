from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from editing_files import write_pixels
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
