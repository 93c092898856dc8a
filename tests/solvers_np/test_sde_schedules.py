"""The SDE that each schedule follows, and SMLD's levels, whose labels run against the noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dpmrt.errors import OptionError
from dpmrt.runtime.request import check_schedule
from dpmrt.solvers_np import NoiseSchedule, compile_plan, make_grid, make_schedule

CONTINUOUS: list[tuple[str, dict[str, Any]]] = [
    ("vp-linear", {}),
    ("vp-linear", {"time_scale": 999.0}),
    ("sub-vp", {}),
    ("vp-cosine", {}),
    ("ve", {}),
    ("ve", {"network_time": "sigma"}),
    ("smld", {"train_steps": 12}),
    ("edm", {}),
    ("flow", {}),
]


@pytest.mark.parametrize("exploding", [False, True])
@pytest.mark.parametrize(("name", "parameters"), CONTINUOUS)
def test_the_levels_solve_the_sde(name: str, parameters: dict[str, Any], exploding: bool) -> None:
    schedule = make_schedule(name, **parameters)
    schedule = schedule.exploding() if exploding else schedule
    width = schedule.t_max - schedule.t_min
    t = schedule.t_min + np.array([0.03, 0.4, 0.8, 0.95]) * width
    d = 1e-6 * width
    clock, drift, diffusion = schedule.rates(t)
    before, after = (schedule.rates(at).clock for at in (t - d, t + d))
    assert (after > before).all()
    of_alpha = (np.log(schedule.alpha(t + d)) - np.log(schedule.alpha(t - d))) / (after - before)
    of_variance = (schedule.sigma(t + d) ** 2 - schedule.sigma(t - d) ** 2) / (after - before)
    np.testing.assert_allclose(drift, of_alpha, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(diffusion, of_variance - 2 * drift * schedule.sigma(t) ** 2, rtol=1e-5)
    np.testing.assert_allclose(clock, (before + after) / 2, rtol=1e-6)
    np.testing.assert_allclose(schedule.pace(t), (after - before) / (2 * d), rtol=1e-6)


def test_what_the_network_is_told_does_not_change_the_sde() -> None:
    u, sigma = np.linspace(0, 1, 5), make_schedule("ve").sigma(np.linspace(0, 1, 5))
    ends = {"sigma_min": 0.01, "sigma_max": 50.0}
    labels = make_schedule("smld", train_steps=9).t_of_lambda(-np.log(sigma))
    told = [(make_schedule("ve", **ends), u), (make_schedule("ve", network_time="sigma", **ends), sigma)]
    for schedule, t in [*told, (make_schedule("smld", train_steps=9, **ends), labels)]:
        clock, drift, diffusion = schedule.rates(t)
        np.testing.assert_allclose(clock, u, atol=1e-12)
        np.testing.assert_array_equal(drift, 0.0)
        np.testing.assert_allclose(diffusion, 2 * math.log(5000.0) * sigma**2, rtol=1e-12)


def test_ddpm_s_betas_are_its_rates() -> None:
    schedule = make_schedule("linear", train_steps=10, beta_start=0.1, beta_end=0.55)
    clock, drift, diffusion = schedule.rates([0.0, 4.0, 4.5, 9.0])
    np.testing.assert_allclose(diffusion, [0.1, 0.3, 0.325, 0.55])
    np.testing.assert_allclose(drift, -np.array(diffusion) / 2)
    assert clock.tolist() == [0.0, 4.0, 4.5, 9.0]
    assert schedule.pace([0.0, 4.5]).tolist() == [1.0, 1.0]


def test_a_schedule_of_one_s_own_need_not_know_its_sde() -> None:
    class Own(NoiseSchedule):
        name = "own"

    with pytest.raises(OptionError, match=r"says nothing of its SDE\n.*'own', a Own"):
        Own().rates(0.5)
    with pytest.raises(OptionError, match=r"does not say how its clock goes\n.*'own', a Own"):
        Own().pace(0.5)


# SMLD.


def test_smld_counts_from_the_noisiest() -> None:
    schedule = make_schedule("smld", train_steps=5, sigma_min=0.01, sigma_max=100.0)
    np.testing.assert_allclose(schedule.sigma(np.arange(5)), [100.0, 10.0, 1.0, 0.1, 0.01])
    assert (schedule.t_max, schedule.t_min, schedule.train_steps) == (0.0, 4.0, 5)
    assert float(schedule.t_of_lambda(0.0)) == pytest.approx(2.0)
    for outside in (-0.5, 4.5):
        with pytest.raises(OptionError, match=r"outside the schedule\n.*\n.*0 to 4"):
            schedule.sigma(outside)


@pytest.mark.parametrize(
    ("grid", "steps", "options", "labels"),
    [
        ("trailing", 5, {}, [0, 1, 2, 3, 4]),
        ("trailing", 2, {}, [0, 3]),
        ("linspace", 4, {}, [0, 1, 2, 3]),
        ("leading", 4, {}, [0, 1, 2, 3]),
        ("uniform", 2, {}, [0, 2]),
        ("uniform", 3, {"t_start": 1.0, "t_end": 4.0}, [1, 2, 3]),
        ("logsnr", 4, {"final": "zero"}, [0, 4 / 3, 8 / 3, 4]),
        ("karras", 3, {"final": "zero", "rho": 100.0, "round_times": True}, [0, 2, 4]),
        ("times", 2, {"times": [1.0, 3.0]}, [1, 3]),
    ],
)
def test_grids_of_smld_run_from_noise_to_data(
    grid: str, steps: int, options: dict[str, Any], labels: list[float]
) -> None:
    schedule = make_schedule("smld", train_steps=5, sigma_min=0.01, sigma_max=100.0)
    made = make_grid(grid, schedule, steps, **options)
    np.testing.assert_allclose(made.t, labels, atol=1e-9)
    assert (np.diff(made.start.sigma) < 0).all()


def test_parts_of_smld_that_are_none() -> None:
    schedule = make_schedule("smld", train_steps=5)
    for ends in ({"t_start": 3.0, "t_end": 1.0}, {"t_start": 2.0, "t_end": 2.0}, {"t_end": 4.5}):
        with pytest.raises(
            OptionError, match=r"do not bound a part of the schedule\n.*\n.*0 <= t_start < t_end <= 4"
        ):
            make_grid("uniform", schedule, 2, **ends)
    with pytest.raises(OptionError, match="gamma is a part of a time that counts from where no noise is"):
        compile_plan("tcd", schedule, 4, prediction="score", gamma=0.3)


def test_a_plan_for_smld_fits_its_bundle_and_no_other() -> None:
    schedule = make_schedule("smld", train_steps=100)
    for solver, grid in (("predictor-corrector", "trailing"), ("heun", "karras"), ("ddim", "logsnr")):
        check_schedule(compile_plan(solver, schedule, 10, grid=grid, prediction="score"), schedule, fix="")
    other = compile_plan("predictor-corrector", make_schedule("smld", train_steps=50), 10, prediction="score")
    with pytest.raises(OptionError, match="for another noise schedule"):
        check_schedule(other, schedule, fix="")
