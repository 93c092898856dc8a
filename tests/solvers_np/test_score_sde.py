"""Predictor-corrector sampling of score SDEs against torch from the paper's equations, and what it refuses."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sde_reference as reference
import torch
from problems import BIMODAL, network

from dpmrt.errors import NonFiniteError, OptionError, PlanError
from dpmrt.solvers_np import (
    BrownianPath,
    Grid,
    Langevin,
    Level,
    Levels,
    RowList,
    StepPlan,
    compile_plan,
    make_grid,
    make_schedule,
    run_plan,
)
from dpmrt.solvers_np.plans.dense import dense_weights
from dpmrt.solvers_np.prediction import to_score

SHAPE = (3, 2, 5)
STEPS = 7
BETAS = np.linspace(0.01, 0.4, STEPS)
PREDICTORS = ("reverse-diffusion", "euler-maruyama", "ancestral", "none")
CORRECTORS = ("langevin", "annealed-langevin", "none")
PAIRS = [pair for pair in itertools.product(PREDICTORS, CORRECTORS) if pair != ("none", "none")]


def family(name: str) -> tuple[reference.Family, Any, str]:
    """Return the reference, the schedule that stands for it here and the network's prediction."""
    if name == "smld":
        return reference.smld(STEPS), make_schedule("smld", train_steps=STEPS), "score"
    if name == "ddpm":
        schedule = make_schedule("linear", train_steps=STEPS, beta_start=BETAS[0], beta_end=BETAS[-1])
        return reference.ddpm(BETAS), schedule, "epsilon"
    if name == "ve":
        times = np.linspace(1, 1e-5, STEPS).tolist()
        return reference.continuous("ve", times), make_schedule("ve", network_time="sigma"), "score"
    times = np.linspace(1, 1e-3, STEPS).tolist()
    schedule = make_schedule({"vp": "vp-linear", "sub-vp": "sub-vp"}[name], time_scale=999.0)
    return reference.continuous(name, times), schedule, "epsilon"


FAMILIES = ("ve", "smld", "vp", "ddpm", "sub-vp")


def told(x: Any, label: float, scale: float, sin: Any) -> Any:
    """A network that is told a label: smooth and of the size of what it stands for."""
    u = x / math.hypot(1.0, scale)
    return (0.7 * sin(u + 0.01 * label) - 0.2 * u) / scale


def compiled(name: str, **options: Any) -> StepPlan:
    _, schedule, prediction = family(name)
    # score_sde ends VE at t = 1e-5, where sigma is not quite sigma_min
    end = {"t_end": float(0.01 * 5000.0**1e-5)} if name == "ve" else {}
    return compile_plan("predictor-corrector", schedule, STEPS, prediction=prediction, **end, **options)


def agree(name: str, **options: Any) -> None:
    theirs = family(name)[0]
    plan = compiled(name, **options)
    assert plan.calls == len(plan.timesteps)
    rng = np.random.default_rng(3)
    x, noise = rng.standard_normal(SHAPE), rng.standard_normal((plan.draws, *SHAPE))
    draws = iter(torch.from_numpy(noise))
    sizes = {theirs.label(i): theirs.std(i) if theirs.answers_score else 1.0 for i in range(STEPS)}
    want = reference.sampled(
        theirs, lambda x, label: told(x, label, sizes[label], torch.sin), torch.from_numpy(x), draws, **options
    ).numpy()
    assert not list(draws)

    def ours(x: Any, t: Any) -> Any:
        label = min(sizes, key=lambda known: abs(known - float(t[0])))
        assert float(t[0]) == pytest.approx(label, rel=1e-6, abs=1e-9)
        return told(x, label, sizes[label], np.sin)

    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 1e-5)):
        got = run_plan(plan, ours, x.astype(dtype), noise=noise.astype(dtype) if plan.stochastic else None)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize(("predictor", "corrector"), PAIRS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_pair_takes_the_paper_s_steps(name: str, predictor: str, corrector: str) -> None:
    agree(name, predictor=predictor, corrector=corrector, corrector_steps=2, snr=0.2)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        {"predictor": "reverse-diffusion", "corrector": "langevin", "denoise": False},
        {"predictor": "euler-maruyama", "corrector": "none", "denoise": False},
        {"predictor": "ancestral", "corrector": "none", "denoise": False},
        {"predictor": "reverse-diffusion", "corrector": "none", "probability_flow": True},
        {"predictor": "euler-maruyama", "corrector": "langevin", "probability_flow": True},
        {"predictor": "reverse-diffusion", "corrector": "langevin", "per_sample": True, "corrector_steps": 3},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_options_do_what_the_paper_says(name: str, options: dict[str, Any]) -> None:
    agree(name, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_networks_are_told_the_labels_that_they_were_trained_with(name: str) -> None:
    theirs, labels = family(name)[0], compiled(name, corrector="none").timesteps
    np.testing.assert_allclose(labels, [theirs.label(i) for i in range(STEPS)], rtol=1e-6)
    if name == "smld":
        assert labels.tolist() == list(range(STEPS))
    if name == "ddpm":
        assert labels.tolist() == list(range(STEPS))[::-1]


@pytest.mark.parametrize("schedule", ["ve", "vp-linear", "sub-vp", "linear", "smld"])
def test_a_score_is_the_same_whatever_the_network_predicts(schedule: str) -> None:
    made, results = make_schedule(schedule), []
    for prediction in ("score", "epsilon", "sample", "v_prediction", "flow"):
        plan = compile_plan("predictor-corrector", made, 12, prediction=prediction)
        rng = np.random.default_rng(2)
        x = plan.init_scale * rng.standard_normal((4, 3))
        noise = rng.standard_normal((plan.draws, 4, 3))
        results.append(run_plan(plan, network(BIMODAL, made, prediction), x, noise=noise))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=0, atol=1e-8)


def test_scores_of_a_scaled_input() -> None:
    level, x = Level(0.3, 0.5, 2.0, 0.25), 1.7
    eps = -0.4
    for prediction, raw in (("epsilon", eps), ("score", -eps / (2.0 * 0.25)), ("sample", (x - 2.0 * eps) / 0.5)):
        state, weight = to_score(prediction, level)
        assert state * x + weight * raw == pytest.approx(-eps / 2.0, rel=1e-12)


def test_without_a_corrector_it_is_the_solver_of_old() -> None:
    for steps, grid in ((5, "uniform"), (8, "karras")):
        old = compile_plan("reverse-diffusion", "ve", steps, grid=grid, prediction="score")
        new = compile_plan("predictor-corrector", "ve", steps, grid=grid, prediction="score", corrector="none")
        assert old.digest() == new.digest()


def test_ddpm_is_ancestral_sampling_of_the_vp_chain() -> None:
    ancestral = compile_plan("predictor-corrector", "linear", 30, predictor="ancestral", corrector="none")
    ddpm = compile_plan("ddpm", "linear", 30, variance="fixed_large")
    for ours, theirs in zip(dense_weights(ancestral), dense_weights(ddpm)):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * np.abs(theirs).max())


def test_in_continuous_time_it_runs_evenly_down_to_no_noise() -> None:
    plan = compile_plan("predictor-corrector", "vp-linear", 4, corrector="none", t_end=0.01)
    np.testing.assert_allclose(plan.timesteps, np.linspace(1, 0.01, 4))
    assert plan.end == (1.0, 0.0)
    held, schedule = (
        compile_plan("predictor-corrector", "vp-linear", 4, final="sigma_min"),
        make_schedule("vp-linear"),
    )
    assert held.end == pytest.approx((float(schedule.alpha(1e-3)), float(schedule.sigma(1e-3))))
    # a corrector alone leaves the noise of the level that it corrects last
    alone = compile_plan("predictor-corrector", "vp-linear", 4, predictor="none")
    assert alone.end == (alone.alpha[-1], alone.sigma[-1])


# The instruction.


def test_langevin_by_hand() -> None:
    rows = RowList(slots=2)
    rows.call(
        1.0,
        0,
        level=(1.0, 1.0),
        state=1.0,
        history={0: 2.0},
        noise=2.0,
        noise_instruction=Langevin(0.5),
        convert=(0.0, -1.0),
        out=1,
        in_scale=0.5,
    )
    rows.move(state=1.0, history={0: 1.0, 1: 10.0})
    plan = rows.plan()
    x, z = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[[1.0, 0.0], [0.0, 3.0]]])
    raw = np.array([[0.0, -1.0], [-3.0, 0.0]])
    h = 0.5 * (1 + 3) / 2 / ((1 + 3) / 2)
    after = x + 2 * h**2 * -raw + 2 * h * z[0]
    got = run_plan(plan, lambda x, t: raw, x, noise=z)
    # the slot keeps the scaled score, and the raw output is as it was
    np.testing.assert_allclose(got, after + h**2 * -raw + 10 * raw, rtol=1e-14)


def test_a_plan_with_langevin_steps_is_saved_and_loaded(tmp_path: Path) -> None:
    plan = compile_plan("predictor-corrector", "vp-linear", 3, per_sample=True, snr=0.1)
    again = StepPlan.load(plan.save(tmp_path / "pc.steps"))
    assert again.digest() == plan.digest()
    assert again.instructions == (Langevin(0.1, True),)
    with pytest.raises(PlanError, match=r"not linear\n.*Langevin"):
        dense_weights(again)


def test_a_langevin_step_needs_a_call_and_noise() -> None:
    for change in ({"noise": 0.0}, {"called": False}):
        rows = RowList(slots=1)
        common = {"state": 1.0, "history": {}, "noise": 1.0, "noise_instruction": Langevin(0.1), **change}
        rows.call(0.0, 0, level=(1.0, 1.0), state=1.0, history={})
        if common.pop("called", True):
            rows.call(0.0, 0, level=(1.0, 1.0), **common)
        else:
            rows.move(**common)
        with pytest.raises(PlanError, match="a Langevin step is in a row that it cannot work on"):
            rows.plan()


def test_samples_are_independent_only_if_each_is_measured_alone() -> None:
    rng = np.random.default_rng(0)
    x, model = rng.standard_normal((3, 4)), network(BIMODAL, make_schedule("vp-linear"), "epsilon")
    for per_sample in (False, True):
        plan = compile_plan("predictor-corrector", "vp-linear", 6, per_sample=per_sample)
        noise = rng.standard_normal((plan.draws, 3, 4))
        batch = run_plan(plan, model, x, noise=noise)
        alone = np.concatenate([run_plan(plan, model, x[k : k + 1], noise=noise[:, k : k + 1]) for k in range(3)])
        assert np.allclose(batch, alone, rtol=0, atol=1e-12) is per_sample


def test_a_brownian_path_draws_each_corrector_step_afresh() -> None:
    plan = compile_plan("predictor-corrector", "vp-linear", 5, corrector_steps=3)
    path, seen = BrownianPath(0), []
    for row in np.flatnonzero(plan.noisy):
        seen.append(path.between((2, 3), *plan.span[row]))
    assert len({draw.tobytes() for draw in seen}) == plan.draws
    # what the predictor adds is the path's, however many steps correct it
    plain = compile_plan("predictor-corrector", "vp-linear", 5, corrector="none")
    kept = [draw for row, draw in zip(np.flatnonzero(plan.noisy), seen) if plan.noise_instruction[row] < 0]
    for row, draw in zip(np.flatnonzero(plain.noisy), kept, strict=True):
        np.testing.assert_array_equal(path.between((2, 3), *plain.span[row]), draw)


# Bad input.


@pytest.mark.parametrize("value", [0.0, 1e-200])
def test_a_score_without_a_norm_is_an_error_and_not_nan(value: float) -> None:
    x = np.ones((2, 3))
    plan = compile_plan("predictor-corrector", "ve", 3, prediction="score")
    with pytest.raises(NonFiniteError, match="cannot set its step by the norm of the score") as caught:
        run_plan(plan, lambda x, t: np.full_like(x, value), x)
    assert "call 1 of 6, t = 1" in str(caught.value.got)
    annealed = compile_plan("predictor-corrector", "ve", 3, prediction="score", corrector="annealed-langevin")
    assert np.isfinite(run_plan(annealed, lambda x, t: np.full_like(x, value), x)).all()


def test_noise_of_zeros_makes_steps_of_no_length() -> None:
    plan = compile_plan("predictor-corrector", "vp-linear", 3, predictor="none")
    x = np.ones((2, 3))
    np.testing.assert_array_equal(run_plan(plan, lambda x, t: np.sin(x), x, noise=np.zeros), x)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"predictor": "heun"}, r"predictor has a value that is not possible\n.*'heun'\n.*'euler-maruyama'"),
        ({"corrector": "ald"}, r"corrector has a value that is not possible\n.*'ald'\n.*'annealed-langevin'"),
        ({"snr": 0.0}, r"snr is out of range\n.*0.0\n.*above 0"),
        ({"snr": -0.1}, r"snr is out of range"),
        ({"snr": math.inf}, r"snr must be a finite number"),
        ({"corrector_steps": 0}, r"corrector_steps is out of range"),
        ({"predictor": "none", "corrector": "none"}, r"nothing would be sampled"),
        ({"predictor": "ancestral", "probability_flow": True}, r"this predictor has no probability flow"),
        ({"predictor": "none", "probability_flow": True}, r"this predictor has no probability flow"),
        ({"sn": 0.1}, r"did you mean 'snr'"),
    ],
)
def test_options_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        compile_plan("predictor-corrector", "vp-linear", 5, **options)


def test_encoding_is_refused() -> None:
    schedule = make_schedule("vp-linear")
    levels = Levels.of([0.1, 0.2], schedule.alpha([0.1, 0.2]), schedule.sigma([0.1, 0.2]))
    grid = Grid(levels.part(0, 1), levels.part(1))
    with pytest.raises(OptionError, match="'predictor-corrector' adds noise of its own, so it cannot encode"):
        compile_plan("predictor-corrector", schedule, 1, grid=grid)


def test_there_is_no_score_at_t_0() -> None:
    for prediction in ("score", "epsilon", "sample", "v_prediction", "flow"):
        with pytest.raises(OptionError, match=r"no score where no noise is left\n.*sigma = 0 at t = 0"):
            to_score(prediction, Level(0.0, 1.0, 0.0))
    for schedule, options, text in (
        ("vp-linear", {"t_end": 0.0}, r"do not bound a part of the schedule\n.*t_end=0\n.*0.001 <="),
        ("vp-linear", {"grid": "times", "times": [0.5, 0.0]}, r"a time is outside the schedule"),
        ("flow", {"grid": "times", "times": [500.0, 0.0]}, r"the noise does not fall.*\n.*at t = 0"),
    ):
        with pytest.raises(OptionError, match=text):
            compile_plan("predictor-corrector", schedule, 2, prediction="flow", **options)


def test_euler_maruyama_needs_to_know_the_time() -> None:
    schedule = make_schedule("vp-linear")
    named = make_grid("uniform", schedule, 3)
    with pytest.raises(OptionError, match="the grid does not know it"):
        compile_plan(
            "predictor-corrector", schedule, 3, grid=Grid(named.start, named.end), predictor="euler-maruyama"
        )
    with pytest.raises(OptionError, match=r"no finite rate at a time of the grid\n.*at t = 1000"):
        compile_plan("predictor-corrector", "flow", 3, prediction="flow", predictor="euler-maruyama")
    with pytest.raises(OptionError, match="cannot step from where no signal is left"):
        compile_plan("predictor-corrector", make_schedule("linear", zero_snr=True), 3, predictor="ancestral")
    # a corrector takes no step there, and the other predictor needs none
    plan = compile_plan("predictor-corrector", make_schedule("linear", zero_snr=True), 3)
    assert plan.calls == 5


def test_none_is_the_name_of_no_corrector_and_no_predictor() -> None:
    for options in ({"corrector": None}, {"predictor": None, "corrector": "annealed-langevin"}):
        given = compile_plan("predictor-corrector", "ve", 4, **options)
        named = compile_plan(
            "predictor-corrector", "ve", 4, **{name: value or "none" for name, value in options.items()}
        )
        for weights, expected in zip(dense_weights(given), dense_weights(named), strict=True):
            np.testing.assert_array_equal(weights, expected)
        assert given.meta["options"] == {"final": "zero", **options}
