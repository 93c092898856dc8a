from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))
from tiny_bundles import write_bundle

from dpmrt.runtime import Pipeline, load


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "labelled", labels=True)


@pytest.fixture(scope="module")
def guided(labelled: Path) -> Iterator[Pipeline]:
    with load(labelled) as pipeline:
        yield pipeline
