"""What predictor-corrector sampling draws, with the exact score of a mixture: mean, covariance and mode weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mixtures import errors, score_network

from dpmrt.solvers_np import compile_plan, make_noise, make_schedule, run_plan

SCHEDULES: dict[str, tuple[str, dict[str, Any]]] = {
    "ve": ("ve", {"sigma_max": 20.0}),
    "smld": ("smld", {"sigma_max": 20.0, "train_steps": 150}),
    "vp": ("vp-linear", {}),
    "sub-vp": ("sub-vp", {}),
    "ddpm": ("linear", {"train_steps": 150, "beta_start": 0.1 / 150, "beta_end": 20 / 150}),
}
#: as many standard errors as three numbers of every run together pass in all but one case of a thousand
MOST = 4.0


def drawn(name: str, count: int, steps: int, **options: Any) -> dict[str, float]:
    kind, parameters = SCHEDULES[name]
    schedule = make_schedule(kind, **parameters)
    plan = compile_plan("predictor-corrector", schedule, steps, prediction="score", **options)
    x = plan.init_scale * np.random.default_rng(0).standard_normal((count, 2))
    return errors(run_plan(plan, score_network(schedule), x, noise=make_noise("numpy", 1)))


@pytest.mark.parametrize(
    ("predictor", "corrector"),
    [("reverse-diffusion", "langevin"), ("euler-maruyama", "none"), ("ancestral", "annealed-langevin")],
)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_mixture_is_drawn(name: str, predictor: str, corrector: str) -> None:
    # a step as short as this leaves a variance too great by a quarter of a hundredth
    found = drawn(name, 2000, 150, predictor=predictor, corrector=corrector, snr=0.05)
    print(name, predictor, corrector, found)
    assert max(found.values()) < MOST, found


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_a_corrector_alone_draws_the_mixture(name: str) -> None:
    found = drawn(name, 1500, 120, predictor="none", snr=0.2, corrector_steps=4)
    print(name, found)
    assert max(found.values()) < MOST, found


@pytest.mark.parametrize("predictor", ["reverse-diffusion", "ancestral"])
@pytest.mark.parametrize("name", ["ve", "sub-vp"])
def test_correction_reduces_the_error_of_a_coarse_predictor(name: str, predictor: str) -> None:
    found = [
        drawn(name, 4000, 10, predictor=predictor, corrector="none"),
        drawn(name, 4000, 10, predictor=predictor, snr=0.16, corrector_steps=4),
        drawn(name, 4000, 10, predictor=predictor, snr=0.25, corrector_steps=10),
    ]
    print(name, predictor, found)
    assert max(found[0].values()) > 2 * MOST
    for none, some, much in zip(*(each.values() for each in found)):
        assert much < 0.75 * none
        assert some < 1.1 * none
    assert found[2]["covariance"] < 0.5 * found[0]["covariance"]
