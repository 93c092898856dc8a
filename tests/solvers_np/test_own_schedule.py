"""DpmrtSchedule: a scheduler config that names a schedule, read strictly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpmrt.errors import OptionError
from dpmrt.solvers_np import (
    SCHEDULES,
    compile_plan,
    make_schedule,
    plan_from_diffusers,
    prediction_from_diffusers,
    schedule_from_diffusers,
)

CONFIG: dict[str, Any] = {
    "_class_name": "DpmrtSchedule",
    "schedule": "sub-vp",
    "parameters": {"time_scale": 999.0, "beta_max": 10.0},
    "prediction_type": "score",
    "solver": "unipc",
    "options": {"grid": "uniform", "order": 2},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_any_schedule_can_be_named(name: str) -> None:
    want = make_schedule(name)
    config = {"_class_name": "DpmrtSchedule", "schedule": name, "prediction_type": want.prediction}
    found = schedule_from_diffusers(config)
    t = np.linspace(*want.t_range, 5)
    np.testing.assert_array_equal(found.sigma(t), want.sigma(t))
    plan = plan_from_diffusers({**config, "solver": "ddim"}, 5)
    assert plan.digest() == compile_plan("ddim", name, 5, prediction=str(want.prediction)).digest()


def test_parameters_solver_and_options_are_followed() -> None:
    schedule = make_schedule("sub-vp", time_scale=999.0, beta_max=10.0)
    want = compile_plan("unipc", schedule, 8, grid="uniform", order=2, prediction="score")
    assert plan_from_diffusers(CONFIG, 8).digest() == want.digest()
    assert plan_from_diffusers(CONFIG, 8, solver="ddim", options={}).digest() == (
        compile_plan("ddim", schedule, 8, prediction="score").digest()
    )
    assert prediction_from_diffusers(CONFIG) == "score"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"schedule": "vp"}, "unknown schedule"),
        ({"schedule": None}, "unknown schedule"),
        ({"parameters": {"beta": 3.0}}, "schedule 'sub-vp' has no option of this name"),
        ({"parameters": {"beta_max": "high"}}, "beta_max must be a finite number"),
        ({"parameters": {"name": "ve"}}, "a name is no parameter"),
        ({"parameters": [1.0]}, "parameters must be a table"),
        ({"options": {"ordr": 2}}, "has an option of this name"),
        ({"options": {"schedule": "ve"}}, "options may not hold what has a key of its own"),
        ({"options": "order=2"}, "options must be a table"),
        ({"solver": "unpic"}, "unknown solver"),
        ({"prediction_type": "noise"}, "unknown prediction_type"),
        ({"beta_max": 10.0}, "DpmrtSchedule has no key of this name here"),
    ],
)
def test_what_is_not_understood_is_refused(change: dict[str, Any], what: str) -> None:
    with pytest.raises(OptionError, match=what):
        plan_from_diffusers({**CONFIG, **change}, 5)
