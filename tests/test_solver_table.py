"""The table of docs/solvers.md is the one that its command prints; the slopes are measured by test_convergence.py."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dpmrt.solvers_np import GRIDS, SCHEDULES, SOLVERS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def solver_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "path", sys.path)
    import solver_table

    monkeypatch.setattr(solver_table, "measured_order", lambda name, case: 0.0)
    return solver_table


def without_slopes(table: str) -> list[str]:
    return [re.sub(r"\| \d+\.\d\d \|", "| |", line) for line in table.strip().splitlines()]


def test_the_table_is_up_to_date(solver_table) -> None:
    page = solver_table.PAGE.read_text()
    _, _, rest = page.partition(solver_table.BEGIN)
    written, _, _ = rest.partition(solver_table.END)
    assert without_slopes(written) == without_slopes(solver_table.table())
    assert solver_table.put(page, written.strip()) == page


def test_every_schedule_and_grid_is_on_its_page() -> None:
    page = (ROOT / "docs/schedules.md").read_text()
    for name in (*SCHEDULES, *GRIDS):
        assert f"`{name}`" in page, name
    assert all(f"`{name}`" in (ROOT / "docs/solvers.md").read_text() for name in SOLVERS)
