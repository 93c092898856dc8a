"""Networks that were really trained, for any test that asks: each once a session, exported to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the bundle of a network of `trained.NETWORKS`, as `trained("plane-vp")`; for reading only."""
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from trained import bundle_of

    # the workers of xdist have folders of their own below one that they share
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "popen" in base.name else base
    return lambda name: bundle_of(name, shared / "trained")
