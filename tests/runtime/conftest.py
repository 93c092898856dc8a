from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
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
