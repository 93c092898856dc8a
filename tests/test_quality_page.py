"""What docs/quality.md shows is measured as it says: distances, budgets of calls, and the table of its command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmrt.export.reference.mixtures import PLANAR
from dpmrt.solvers_np import compile_plan

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "path", sys.path)
    import quality_per_call

    monkeypatch.setattr(quality_per_call, "MIXTURE_SAMPLES", 2000)
    return quality_per_call


def test_the_distance_of_shifted_quantiles_is_the_shift(quality: Any) -> None:
    part = quality.Mixtures(quality.LINE)
    exact = part.exact[0]
    assert part.distance(exact[:, None]) == pytest.approx(0, abs=1e-6)
    # in any order, as samples come
    assert part.distance(np.random.default_rng(0).permutation(exact)[:, None] + 0.25) == pytest.approx(250)


def test_quantiles_are_those_of_the_mixture_seen_along_a_direction(quality: Any) -> None:
    direction = np.array([0.6, 0.8])
    found = quality.quantiles(PLANAR, direction, 200)
    drawn = np.sort(PLANAR.sample(200_000, seed=5) @ direction).reshape(200, 1000).mean(1)
    np.testing.assert_allclose(found[5:-5], drawn[5:-5], atol=0.03)


@pytest.mark.parametrize("budget", [5, 10, 20, 50, 100])
def test_a_budget_of_calls_is_kept_and_used(quality: Any, budget: int) -> None:
    for label, (solver, options) in quality.SOLVERS.items():
        plan = quality.plan_within(lambda steps: compile_plan(solver, "linear", steps, **options), budget)  # noqa: B023
        assert budget - 1 <= plan.calls <= budget, label


def test_more_calls_bring_samples_nearer_to_the_mixture(quality: Any) -> None:
    part = quality.Mixtures(quality.LINE)
    errors = [part.measure("dpmsolver++", {}, budget) for budget in (5, 20, 100)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_the_page_holds_the_commands_table(quality: Any) -> None:
    _, begin, rest = quality.PAGE.read_text().partition(quality.BEGIN)
    assert begin
    written, end, _ = rest.partition(quality.END)
    assert end
    for name in (*quality.HEADS.values(), *quality.SOLVERS):
        assert f"| {name} |" in written, name
