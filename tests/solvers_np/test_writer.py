"""PlanWriter: whatever a solver writes as sums, the plan does; with few slots."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmrt.errors import PlanError
from dpmrt.solvers_np import Clip, Level, Mix, PlanWriter, make_grid, make_schedule, run_plan
from dpmrt.solvers_np.plans.mix import Symbol

HERE, THERE = Level(1.0, 0.6, 0.8), Level(0.0, 0.8, 0.6)
START = Level(0.0, 1.0, 0.0)


def test_terms_that_cancel_vanish_and_small_ones_stay() -> None:
    x, y = Mix.of(Symbol("state", 0)), Mix.of(Symbol("quantity", 0))
    third = (x / 3 + y) * 3 - x
    assert third.weights == {Symbol("quantity", 0): 3.0}
    assert (1e-12 * x + y).weights == {Symbol("state", 0): 1e-12, Symbol("quantity", 0): 1.0}
    assert (0 * x).weights == {}
    assert (x - y)[Symbol("quantity", 0)] == -1.0


@st.composite
def programs(draw: st.DrawFn) -> list[dict]:
    """Rows that each may call, and move to a sum over any states and quantities there are by then."""
    rows, weight = [], st.floats(0.3, 2.0).flatmap(lambda v: st.sampled_from([v, -v]))
    for i in range(draw(st.integers(1, 8))):
        calls = draw(st.booleans()) or i == 0
        made = [("quantity", k) for k, r in enumerate(rows) if r["calls"]]
        old = [("state", k) for k in range(i)]
        named = draw(st.lists(st.sampled_from(made + old), max_size=3, unique=True)) if made + old else []
        named += [("quantity", i)] if calls and draw(st.booleans()) else []
        named += [("raw", i)] if calls and draw(st.booleans()) else []
        rows.append(
            {
                "calls": calls,
                "convert": (draw(weight), draw(weight)) if draw(st.booleans()) else (0.0, 1.0),
                "state": draw(st.one_of(st.just(0.0), weight)),
                "terms": {name: draw(weight) for name in named},
                "noise": draw(st.sampled_from([0.0, 0.0, 0.5])),
            }
        )
    return rows


def directly(rows: list[dict], x: float, noise: list[float], model: Callable[[float], float]) -> float:
    values, draws = {}, iter(noise)
    for i, row in enumerate(rows):
        values["state", i] = x
        if row["calls"]:
            values["raw", i] = model(x)
            values["quantity", i] = row["convert"][0] * x + row["convert"][1] * values["raw", i]
        x = row["state"] * x + sum(w * values[name] for name, w in row["terms"].items())
        x += row["noise"] * next(draws) if row["noise"] else 0.0
    return x


@given(rows=programs())
def test_a_plan_does_what_was_written(rows: list[dict]) -> None:
    writer = PlanWriter(start=START)
    made: dict[tuple[str, int], Mix] = {}
    for i, row in enumerate(rows):
        made["state", i] = writer.x
        if row["calls"]:
            made["quantity", i] = writer.call(HERE, row["convert"])
            made["raw", i] = writer.raw
        to = sum((w * made[name] for name, w in row["terms"].items()), row["state"] * writer.x)
        writer.move(to, noise=row["noise"], over=(HERE, THERE))
    plan = writer.plan()
    noise = [0.3, -0.7, 1.1, 0.2, -1.3, 0.8, 0.1, 0.4]
    want = directly(rows, 0.9, noise, lambda v: math.sin(3 * v))
    got = run_plan(plan, lambda x, t: np.sin(3 * x), np.full((1, 1), 0.9), noise=np.array(noise)[:, None, None])
    bulk = 1 + max(abs(plan.weights).max(), 1) ** 2
    assert got[0, 0] == pytest.approx(want, rel=1e-7, abs=1e-9 * bulk)


def test_an_earlier_state_costs_no_slot_where_its_move_can_be_undone() -> None:
    rows = PlanWriter(start=START)
    x = rows.x
    d = rows.call(HERE)
    rows.move(0.5 * x + 0.1 * d)
    d2 = rows.call(THERE)
    rows.move(x + 0.05 * d + 0.05 * d2)
    plan = rows.plan()
    assert plan.slots == 2
    np.testing.assert_allclose(plan.weights[1], [2.0, -0.15, 0.05], atol=1e-15)
    assert plan.keep.tolist() == [-1, -1]


@pytest.mark.parametrize(("shrink", "noise"), [(1.0, 0.5), (1e-3, 0.0)])
def test_an_earlier_state_is_kept_where_it_cannot(shrink: float, noise: float) -> None:
    rows = PlanWriter(start=START)
    x = rows.x
    d = rows.call(HERE)
    rows.move(shrink * x + 0.1 * d, noise=noise, over=(HERE, THERE))
    rows.call(THERE)
    rows.move(x + d)
    plan = rows.plan()
    assert plan.keep[0] >= 0
    assert plan.weights[1, 0] == 0
    assert plan.weights[1, 1 + plan.keep[0]] == 1.0


def test_a_slot_is_free_again_after_its_last_reader() -> None:
    rows, old = PlanWriter(start=START), []
    for _ in range(6):
        old.append(rows.call(HERE))
        rows.move(sum(old[-2:], rows.x))
    assert rows.plan().slots == 2
    assert rows.plan().out.tolist() == [0, 1] * 3


def test_the_raw_output_is_kept_beside_what_an_instruction_made_of_it() -> None:
    rows = PlanWriter(start=START)
    x0 = rows.call(HERE, (0.0, 2.0), instruction=Clip(1.0))
    rows.move(x0 + 10 * rows.raw)
    got = run_plan(rows.plan(), lambda x, t: x, np.array([[3.0, 0.25]]))
    np.testing.assert_allclose(got, [[31.0, 3.0]])


def test_what_a_grid_knows_reaches_the_plan() -> None:
    grid = make_grid("karras", make_schedule("linear").exploding(), 3, final="sigma_min")
    rows = PlanWriter(grid)
    for here, _ in grid:
        rows.call(here)
        rows.move(rows.x)
    plan = rows.plan()
    first = next(iter(grid.start))
    assert plan.start == (1.0, first.sigma)
    assert plan.init_scale == first.sigma > 100
    assert plan.end == (1.0, grid.last.sigma)
    np.testing.assert_allclose(plan.in_scale, 1 / np.hypot(1, plan.sigma), rtol=1e-12)


def test_noise_must_say_over_which_levels_it_acts() -> None:
    rows = PlanWriter(start=START)
    with pytest.raises(PlanError, match="adds noise without saying between which levels"):
        rows.move(rows.x, noise=0.1)


def test_one_call_a_row() -> None:
    rows = PlanWriter(start=START)
    rows.call(HERE)
    with pytest.raises(PlanError, match="two calls without a move"):
        rows.call(HERE)


def test_nan_is_not_taken_for_what_cancelled() -> None:
    rows = PlanWriter(start=START)
    q = rows.call(HERE)
    rows.move(rows.x + math.nan * q + q)
    with pytest.raises(PlanError, match="column 'weights' is not finite"):
        rows.plan()
