"""Small bundles for the real builder of TensorRT-RTX; no test here needs a GPU."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/runtime"))
from tiny_bundles import write_bundle  # noqa: E402

pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx-cu13")


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep remembered hashes and engines of the user out."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DPMRT_ENGINES", raising=False)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny", labels=True)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Return a copy of the shipped bundle, so that it can be altered and gets its own engines."""
    kept = shutil.ignore_patterns("engines")
    return Path(shutil.copytree(ROOT / "engines/digits", tmp_path / "digits", ignore=kept))
