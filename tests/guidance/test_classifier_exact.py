"""Classifier guidance where all is known: mixture score and classifier gradient make the score of the class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mixture import COVS, MEANS, Network, judge, log_posterior_gradient

from dpmrt.errors import OptionError
from dpmrt.runtime.guidance.classifier import GuideMean, GuideNoise, mean_suits
from dpmrt.solvers_np import NumpyNoise, StepPlan, compile_plan, plan_from_diffusers, run_plan

ONE = np.ones(40)
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PLANS: dict[str, Any] = {
    "ddim": ("ddim", {}),
    "ddim, eta": ("ddim", {"eta": 0.8}),
    "dpmsolver++": ("dpmsolver++", {"order": 3}),
    "dpmsolver, singlestep": ("dpmsolver-singlestep", {"grid": "logsnr"}),
    "unipc": ("unipc", {}),
    "ancestral": ("euler-ancestral", {"grid": "karras"}),
    "euler, scaled": "EulerDiscreteScheduler",
    "heun, scaled": "HeunDiscreteScheduler",
    "lms, scaled": "LMSDiscreteScheduler",
    "ancestral, scaled": "EulerAncestralDiscreteScheduler",
}


def plan_of(case: str, prediction: str) -> StepPlan:
    """Compile a plan; the scaled ones keep x0 as it is beside noise of any size, and scale what the network sees."""
    made = PLANS[case]
    if isinstance(made, str):
        return plan_from_diffusers({"_class_name": made, "prediction_type": prediction, **SCALED}, 12)
    return compile_plan(made[0], "linear", 12, prediction=prediction, **made[1])


def states(plan: StepPlan, count: int = len(ONE)) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 2)) * plan.init_scale


def guided_and_known(plan: StepPlan, prediction: str, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Return samples of the mixture's network and the classifier, and of the class's own network."""
    x, noise = states(plan), NumpyNoise if plan.stochastic else (lambda seed: None)
    hook = GuideNoise(judge(plan, label), ONE)
    guided = run_plan(plan, Network(plan, prediction), x, noise=noise(3), hooks=[hook])
    return guided, run_plan(plan, Network(plan, prediction, label), x, noise=noise(3))


#: diffusers' EulerAncestralDiscreteScheduler refuses networks that predict x0
PAIRS = [
    (c, p) for c in PLANS for p in ("epsilon", "sample", "v_prediction") if (c, p) != ("ancestral, scaled", "sample")
]


@pytest.mark.parametrize(("case", "prediction"), PAIRS)
def test_moving_eps_is_sampling_the_class(case: str, prediction: str) -> None:
    plan = plan_of(case, prediction)
    for label in (0, 1):
        guided, known = guided_and_known(plan, prediction, label)
        np.testing.assert_allclose(guided, known, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("solver", "schedule", "prediction", "options"),
    [
        ("flow-euler", "flow", "flow", {"t_start": 950}),
        ("flow-heun", "flow", "flow", {"t_start": 950}),
        ("euler", "edm", "edm", {}),
        ("heun", "edm", "edm", {}),
        ("ddim", "linear", "score", {}),
        ("dpmsolver++", "linear", "score", {}),
    ],
)
def test_it_holds_for_flows_scores_and_preconditioned_networks(
    solver: str, schedule: str, prediction: str, options: dict[str, Any]
) -> None:
    plan = compile_plan(solver, schedule, 10, prediction=prediction, **options)
    guided, known = guided_and_known(plan, prediction, 1)
    np.testing.assert_allclose(guided, known, rtol=1e-7, atol=1e-7)


def test_the_scaled_plans_show_states_of_unit_variance() -> None:
    plan = plan_of("euler, scaled", "epsilon")
    calls = plan.out >= 0
    assert plan.in_scale[0] < 0.1
    np.testing.assert_allclose(plan.in_scale[calls], 1 / np.hypot(plan.alpha, plan.sigma)[calls], rtol=1e-12)


@pytest.mark.parametrize("mode", [GuideNoise, GuideMean])
@pytest.mark.parametrize("label", [0, 1])
def test_the_sampled_class_has_its_mean_and_covariance(mode: Any, label: int) -> None:
    plan = compile_plan("ddpm", "linear", 150)
    assert mean_suits(plan)
    count = 2000
    hook = mode(judge(plan, label), np.ones(count))
    got = run_plan(plan, Network(plan, "epsilon"), states(plan, count), noise=NumpyNoise(5), hooks=[hook])
    # 4.5 standard errors of the mean, and as much of the covariances, beside the discretisation of 150 steps
    np.testing.assert_allclose(got.mean(axis=0), MEANS[label], atol=4.5 * np.sqrt(0.4 / count) + 0.01)
    np.testing.assert_allclose(np.cov(got.T), COVS[label], atol=4.5 * 0.4 * np.sqrt(2 / count) + 0.015)


def test_the_mean_is_moved_by_scale_times_variance_times_gradient() -> None:
    plan = compile_plan("ddpm", "linear", 6, variance="fixed_large")
    x, scale = states(plan, 3), np.array([0.5, 2.0, 0.0])
    network, ask = Network(plan, "epsilon"), judge(plan, 0)
    stream = np.random.default_rng(1)
    noise = stream.standard_normal((plan.draws, 3, 2))
    got = run_plan(plan, Network(plan, "epsilon"), x, noise=noise, hooks=[GuideMean(ask, scale)])
    now = x.copy()
    for k in range(6):
        alpha, sigma = plan.alpha[k], plan.sigma[k]
        last = k == 5
        alpha_, sigma_ = plan.end if last else (plan.alpha[k + 1], plan.sigma[k + 1])
        ratio, beta = alpha / alpha_, sigma**2 - (sigma_ * alpha / alpha_) ** 2
        eps = network(now, None)
        # Ho et al. 2020, eq. 11 of the mean; the last step adds no noise
        mean = (now - beta / sigma * eps) / ratio
        if last:
            now = mean
            continue
        grad = log_posterior_gradient(now, alpha, sigma, 0)
        now = mean + scale[:, None] * beta * grad + np.sqrt(beta) * noise[k]
    np.testing.assert_allclose(got, now, rtol=1e-9, atol=1e-9)


def test_a_learned_variance_moves_the_mean_by_as_much_as_it_is() -> None:
    plan = compile_plan("ddpm", "linear", 5, variance="learned_range")
    x = states(plan, 4)[:, :, None]
    noise = np.random.default_rng(1).standard_normal((plan.draws, *x.shape))

    def network(x: Any, t: Any) -> Any:
        return np.concatenate([0.3 * x, np.tanh(x)], axis=1)

    def gradient(x: Any, t: float) -> Any:
        return 0.2 - x

    got = run_plan(plan, network, x, noise=noise, hooks=[GuideMean(gradient, np.full(4, 3.0))])
    now = x.copy()
    for k in range(5):
        alpha, sigma = plan.alpha[k], plan.sigma[k]
        alpha_, sigma_ = plan.end if k == 4 else (plan.alpha[k + 1], plan.sigma[k + 1])
        ratio, beta = alpha / alpha_, sigma**2 - (sigma_ * alpha / alpha_) ** 2
        mean = (now - beta / sigma * 0.3 * now) / ratio
        if k < 4:
            tilde = beta * sigma_**2 / sigma**2
            v = (np.tanh(now) + 1) / 2
            # Nichol and Dhariwal 2021, eq. 15
            variance = np.exp(v * np.log(beta) + (1 - v) * np.log(tilde))
            mean = mean + 3.0 * variance * (0.2 - now) + np.sqrt(variance) * noise[k]
        now = mean
    np.testing.assert_allclose(got, now, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", ["ddim", "heun", "pndm"])
def test_a_mean_is_moved_only_in_plans_that_have_one(solver: str) -> None:
    plan = compile_plan(solver, "linear", 12)
    assert not mean_suits(plan)
    with pytest.raises(OptionError, match="cannot move the mean of this plan's steps") as caught:
        run_plan(plan, lambda x, t: x, np.zeros((1, 2)), hooks=[GuideMean(lambda x, t: x, np.ones(1))])
    assert "classifier_mode='noise'" in str(caught.value.fix)


def test_nothing_is_moved_where_no_signal_or_no_noise_is() -> None:
    plan = compile_plan("flow-euler", "flow", 4, prediction="flow")
    asked: list[float] = []

    def gradient(x: Any, t: float) -> Any:
        asked.append(t)
        return 0 * x

    run_plan(plan, lambda x, t: 0 * x, np.ones((1, 2)), hooks=[GuideNoise(gradient, np.ones(1))])
    inside = plan.timesteps[(plan.alpha[plan.out >= 0] > 0) & (plan.sigma[plan.out >= 0] > 0)]
    assert asked == inside.tolist()
