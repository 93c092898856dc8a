"""Networks that were trained to each loss, exported, and sampled by ONNX Runtime: the samples are the mixture's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained import DIGITS, PLANES

from dpmrt.errors import ExportError
from dpmrt.export.reference.mixtures import PLANAR
from dpmrt.export.reference.objectives import make_objective
from dpmrt.export.schedulers import scheduler_class
from dpmrt.runtime import Pipeline, load
from dpmrt.solvers_np import SOLVERS, Level, compile_plan, schedule_from_diffusers
from dpmrt.solvers_np.prediction import to_eps

Trained = Callable[[str], Path]
#: a score told sigma and a noise told the time; every solver is run on them
WITH_ALL_SOLVERS = ("plane-ve", "plane-sub-vp")
#: by its constant weight, ve-likelihood is ve
TAUGHT = tuple(name for name in PLANES if name != "plane-ve-likelihood")
#: for networks that were distilled, which these are not
DISTILLED = ("lcm", "tcd")
COUNT = 3000


@pytest.fixture(scope="module")
def opened(trained: Trained) -> Iterator[Callable[[str], Pipeline]]:
    """Return the pipeline of a trained network, open for all of this file."""
    kept: dict[str, Pipeline] = {}

    def find(name: str) -> Pipeline:
        if name not in kept:
            kept[name] = load(trained(name), threads=1)
        return kept[name]

    yield find
    for pipeline in kept.values():
        pipeline.close()


def check_moments(samples: np.ndarray, *, mean: float, covariance: float, weights: float) -> None:
    """Hold samples against the mixture; Monte-Carlo error is about 0.02, 0.03 and 0.01 of it."""
    x = samples.astype(np.float64)
    assert np.isfinite(x).all()
    assert np.abs(x.mean(0) - PLANAR.mean).max() < mean
    assert np.abs(np.cov(x.T) - PLANAR.covariance).max() < covariance
    assert np.abs(PLANAR.mode_weights(x) - PLANAR.weights).max() < weights


def is_coarse(solver: str) -> bool:
    """Whether the solver is of first order, or adds noise: its steps are then what is seen, not the training."""
    return SOLVERS[solver].noise == "yes" or not SOLVERS[solver].cases or SOLVERS[solver].cases[0].order < 2


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name not in DISTILLED])
@pytest.mark.parametrize("name", WITH_ALL_SOLVERS)
def test_every_solver_samples_what_the_network_learned(opened: Any, name: str, solver: str) -> None:
    samples = opened(name).sample(COUNT, seed=3, steps=40, solver=solver)
    if is_coarse(solver):
        check_moments(samples, mean=0.12, covariance=0.3, weights=0.06)
    else:
        check_moments(samples, mean=0.08, covariance=0.12, weights=0.04)


@pytest.mark.parametrize("name", TAUGHT)
def test_every_loss_teaches_the_mixture(opened: Any, name: str) -> None:
    for solver in ("dpmsolver++", "sde-dpmsolver++"):
        samples = opened(name).sample(COUNT, seed=3, steps=25, solver=solver)
        check_moments(samples, mean=0.1, covariance=0.15, weights=0.05)


@pytest.mark.parametrize("name", TAUGHT)
def test_a_bundle_is_sampled_as_its_scheduler_says(opened: Any, name: str) -> None:
    coarse = {"plane-ve": 80, "plane-smld": 80, "plane-learned-range": 80}
    samples = opened(name).sample(COUNT, seed=3, steps=coarse.get(name, 25))
    check_moments(samples, mean=0.1, covariance=0.15, weights=0.05)


@pytest.mark.parametrize("name", TAUGHT)
def test_what_the_network_answers_is_near_to_the_exact_noise(opened: Any, name: str) -> None:
    pipeline = opened(name)
    schedule = schedule_from_diffusers(pipeline.bundle.scheduler_config)
    normal = np.random.default_rng(0).standard_normal((500, 2))
    model = pipeline.model(500)
    for lambda_ in (2.0, 0.5, -1.0):
        level: Level = schedule.level(lambda_)
        x = level.alpha * PLANAR.sample(500, seed=1) + level.sigma * normal
        state, raw = to_eps(model.prediction, level)
        found = state * x + raw * model(x, level.t)
        wrong = found - PLANAR.epsilon(x, level.alpha, level.sigma)
        # against an eps of unit variance
        assert np.sqrt((wrong**2).mean()) < 0.25, lambda_


def test_the_learned_variance_is_the_exact_one(opened: Any) -> None:
    """For a mixture the reverse variance is known: q's, and what the spread of x0 at a state adds."""
    pipeline = opened("plane-learned-range")
    bars = schedule_from_diffusers(pipeline.bundle.scheduler_config).alphas_cumprod
    beta = 1 - bars[1:] / bars[:-1]
    index = 30
    bar, before, large = bars[index], bars[index - 1], beta[index - 1]
    small = large * (1 - before) / (1 - bar)
    alpha, sigma = np.sqrt(bar), np.sqrt(1 - bar)
    x = alpha * PLANAR.sample(2000, seed=1) + sigma * np.random.default_rng(0).standard_normal((2000, 2))
    h = 1e-4
    curvature = np.stack(
        [
            (PLANAR.score(x + h * e, alpha, sigma) - PLANAR.score(x - h * e, alpha, sigma)) @ e / (2 * h)
            for e in np.eye(2)
        ],
        axis=1,
    )
    of_x0 = sigma**2 / alpha**2 * (1 + sigma**2 * curvature)
    exact = small + before * large**2 / (1 - bar) ** 2 * of_x0
    want = 2 * (np.log(exact) - np.log(small)) / (np.log(large) - np.log(small)) - 1
    found = raw_output(pipeline, x, float(index))[:, 2:]
    # the bound is flat about its minimum; a network that learned nothing is 0.75 off
    assert np.abs(want - found).mean() < 0.3


def raw_output(pipeline: Pipeline, x: np.ndarray, t: float) -> np.ndarray:
    """The whole of what the graph answers, its variance included."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(pipeline.bundle.root / "unet/model.onnx"))
    times = np.full(len(x), t, np.float32)
    return np.asarray(session.run(None, {"sample": x.astype(np.float32), "timestep": times})[0], dtype=np.float64)


def test_a_learned_variance_restores_what_a_small_one_loses_in_few_steps(opened: Any) -> None:
    errors = {}
    for variance in ("fixed_small", "learned_range"):
        x = (
            opened("plane-learned-range")
            .sample(COUNT, seed=3, steps=12, solver="ddpm", variance=variance)
            .astype(float)
        )
        errors[variance] = float(np.abs(np.cov(x.T) - PLANAR.covariance).max())
    assert errors["learned_range"] < 0.7 * errors["fixed_small"]


@pytest.mark.parametrize("name", DIGITS)
def test_networks_of_pictures_are_sampled(opened: Any, name: str) -> None:
    samples = opened(name).sample(2, seed=0, steps=4, label=[3, 7], guidance=2.0)
    assert samples.shape == (2, 1, 16, 16)
    assert np.isfinite(samples).all()


def test_nothing_of_torch_is_loaded_to_sample(trained: Trained) -> None:
    code = (
        "import sys, dpmrt.runtime\n"
        "for bundle in sys.argv[1:]:\n"
        "    with dpmrt.runtime.load(bundle) as pipeline:\n"
        "        pipeline.sample(2, steps=3)\n"
        "heavy = {'torch', 'onnx', 'diffusers', 'scipy', 'sklearn', 'matplotlib'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    bundles = [str(trained(f"plane-{loss}")) for loss in ("ddpm", "ve", "sub-vp", "learned-range")]
    done = subprocess.run([sys.executable, "-c", code, *bundles], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_plan_follows_the_schedule_that_was_trained(opened: Any) -> None:
    pipeline = opened("plane-sub-vp")
    schedule = schedule_from_diffusers(pipeline.bundle.scheduler_config)
    assert schedule.name == "sub-vp"
    assert pipeline.plan(9).digest() == compile_plan("dpmsolver++", schedule, 9).digest()


def test_diffusers_is_not_asked_for_what_it_does_not_know() -> None:
    with pytest.raises(ExportError, match="diffusers has no scheduler for a schedule of dpmrt's own"):
        scheduler_class(make_objective("sub-vp").scheduler)
