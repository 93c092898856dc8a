"""Corrections of x0 and of the state: what the function gives is what every solver goes on with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np import CorrectState, CorrectX0, Level, StepPlan, compile_plan, run_plan
from dpmrt.solvers_np.prediction import to_x0

X = np.random.default_rng(3).standard_normal((2, 3, 4))
PICTURE = np.random.default_rng(4).uniform(-1, 1, X.shape)
KNOWN = np.random.default_rng(5).uniform(size=X.shape) < 0.5


def network(x: Any, t: Any) -> Any:
    return np.sin(x) * 0.8


def compiled(solver: str, prediction: str = "epsilon", **options: Any) -> StepPlan:
    return compile_plan(solver, "linear", 8, prediction=prediction, **options)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction", "score"])
@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++", "euler", "heun", "unipc", "deis"])
def test_the_network_says_what_the_function_says(solver: str, prediction: str) -> None:
    """Runs with the hook, and with a network that itself clips x0 and says so in its own terms."""
    plan = compiled(solver, prediction)
    rows = iter(np.flatnonzero(plan.out >= 0).tolist())
    seen: list[tuple[float, Level]] = []

    def clipping(shown: Any, t: Any) -> Any:
        row = next(rows)
        level = Level(*(float(c[row]) for c in (plan.t, plan.alpha, plan.sigma, plan.in_scale)))
        x = shown / level.in_scale
        a, b = to_x0(prediction, level)
        return (np.clip(a * x + b * network(shown, t), -0.4, 0.6) - a * x) / b

    def clip(x0: Any, t: float, level: Level) -> Any:
        seen.append((t, level))
        return np.clip(x0, -0.4, 0.6)

    x = X * plan.init_scale
    got = run_plan(plan, network, x, hooks=[CorrectX0(clip)])
    np.testing.assert_allclose(got, run_plan(plan, clipping, x), rtol=1e-7, atol=1e-9)
    assert [t for t, _ in seen] == plan.timesteps.tolist() == [level.t for _, level in seen]


def test_what_is_known_of_x0_is_kept() -> None:
    plan = compiled("dpmsolver++", grid="logsnr", final="zero")
    assert plan.end[1] == 0
    keep = CorrectX0(lambda x0, t, level: np.where(KNOWN, PICTURE, x0))
    got = run_plan(plan, network, X, hooks=[keep])
    np.testing.assert_allclose(got[KNOWN], PICTURE[KNOWN], atol=1e-9)
    assert abs(got[~KNOWN] - PICTURE[~KNOWN]).max() > 0.1


@pytest.mark.parametrize("solver", ["ddim", "euler", "heun"])
def test_a_state_may_be_replaced_at_every_level(solver: str) -> None:
    plan, levels = compiled(solver), []

    def noised(x: Any, level: Level) -> Any:
        levels.append(level)
        return np.where(KNOWN, level.alpha * PICTURE + level.sigma * 0.5, x)

    got = run_plan(plan, network, X * plan.init_scale, hooks=[CorrectState(noised)])
    alpha, sigma = plan.end
    np.testing.assert_allclose(got[KNOWN], alpha * PICTURE[KNOWN] + sigma * 0.5, atol=1e-12)
    assert (levels[-1].alpha, levels[-1].sigma) == plan.end
    assert [level.alpha for level in levels[:-1]] == plan.alpha[1:][plan.out[1:] >= 0].tolist()


def test_a_plan_that_does_not_say_what_its_network_predicts_is_told() -> None:
    import dataclasses

    plan = dataclasses.replace(compiled("ddim"), meta={})
    hook = CorrectX0(lambda x0, t, level: 0 * x0)
    with pytest.raises(OptionError, match="does not say what its network predicts") as caught:
        run_plan(plan, network, X, hooks=[hook])
    assert caught.value.fix == "prediction='epsilon'"
    told = CorrectX0(lambda x0, t, level: 0 * x0, prediction="epsilon")
    assert abs(run_plan(plan, network, X, hooks=[told])).max() < 1
    with pytest.raises(OptionError, match="prediction"):
        run_plan(plan, network, X, hooks=[CorrectX0(lambda x0, t, level: x0, prediction="epsilom")])


@pytest.mark.parametrize("value", [1.0, None, np.zeros((2, 3))])
def test_what_is_no_array_like_the_one_given_is_refused(value: Any) -> None:
    for hook in (CorrectX0(lambda x0, t, level: value), CorrectState(lambda x, level: value)):
        with pytest.raises(ArrayError, match="gave no array like the one that it got") as caught:
            run_plan(compiled("ddim"), network, X, hooks=[hook])
        assert caught.value.expected == X.shape


def test_what_cannot_be_called_is_refused() -> None:
    for kind in (CorrectX0, CorrectState):
        with pytest.raises(OptionError, match="a correction cannot be called"):
            kind(3)  # type: ignore[arg-type]


def test_x0_cannot_be_corrected_where_the_state_is_x0() -> None:
    from dpmrt.solvers_np import CallView

    view = CallView(0, 0, Level(0.0, 1.0, 0.0), X, X.copy(), None, np)
    hook = CorrectX0(lambda x0, t, level: x0, prediction="epsilon")
    hook._prediction = "epsilon"
    with pytest.raises(OptionError, match="where the state holds no noise"):
        hook.output(view)
