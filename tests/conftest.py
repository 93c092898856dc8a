"""Networks that were really trained, each once a session and exported to a bundle; which worker runs which tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: files of tests/export whose tests read the same traces, which take longest: one worker runs them all
_SHARED = {
    "traces": "bundle certificate certificate_own_schedule emulation export_cli folding guard origins parity"
    " precision",
    "families": "interfaces families_sampled",
}
_GROUPS = {f"test_{name}.py": group for group, names in _SHARED.items() for name in names.split()}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give workers single tests, but those of an export's file, or of files that share traces, together."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = Path(nodeid.partition("::")[0])
            return _GROUPS.get(path.name, path.name) if path.parts[:2] == ("tests", "export") else nodeid

    return Scheduling(config, log)


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
