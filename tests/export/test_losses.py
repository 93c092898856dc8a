"""The losses of the reference networks: values, exact minimisers, weights, and what has no gradient."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch
from gaussian_data import BARS, draw, exact_score

from dpmrt.errors import OptionError
from dpmrt.export.reference.losses.denoising import denoising_loss
from dpmrt.export.reference.losses.noisy_classifier import noisy_cross_entropy
from dpmrt.export.reference.losses.score import score_by_sigma, score_loss, score_of_epsilon
from dpmrt.export.reference.losses.smld import smld_loss
from dpmrt.export.reference.objectives import OBJECTIVES, make_objective
from dpmrt.export.reference.sdes import sub_vp_sde, ve_sde, vp_sde
from dpmrt.solvers_np import prediction_from_diffusers, schedule_from_diffusers

SDES = {"ve": ve_sde(0.01, 10.0), "vp": vp_sde(), "sub-vp": sub_vp_sde()}


def affine_minimiser(loss) -> tuple[torch.Tensor, torch.Tensor]:
    """The slopes and offsets, an entry each, that minimise a loss that is quadratic in them: Newton's one step."""
    start = torch.zeros(4, dtype=torch.float64)

    def of(weights: torch.Tensor) -> torch.Tensor:
        return loss(lambda x, t: weights[:2] * x + weights[2:])

    gradient = torch.autograd.functional.jacobian(of, start)
    found = start - torch.linalg.solve(torch.autograd.functional.hessian(of, start), gradient)
    return found[:2], found[2:]


def check_minimiser(loss, alpha: float, sigma: float, to_score) -> None:
    """Hold the affine minimiser against the score, which is affine for Gaussian data; 0.02 is Monte-Carlo error."""
    slope, offset = affine_minimiser(loss)
    x = torch.stack([torch.zeros(2), torch.ones(2)]).double()
    want, found = exact_score(x, alpha, sigma), to_score(slope * x + offset, x)
    torch.testing.assert_close(sigma * found, sigma * want, atol=0.02, rtol=0)


@pytest.mark.parametrize("index", [3, 20, 49])
@pytest.mark.parametrize("target", ["epsilon", "v_prediction", "sample"])
def test_denoising_is_minimised_by_the_exact_score(target: str, index: int) -> None:
    x0, noise = draw(200_000)
    t = torch.full((len(x0),), index)
    alpha, sigma = float(BARS[index].sqrt()), float((1 - BARS[index]).sqrt())
    to_score = {
        "epsilon": lambda raw, x: -raw / sigma,
        "v_prediction": lambda raw, x: -(sigma * x + alpha * raw) / sigma,
        "sample": lambda raw, x: (alpha * raw - x) / sigma**2,
    }[target]
    check_minimiser(lambda model: denoising_loss(model, x0, t, noise, BARS, target), alpha, sigma, to_score)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 8.0])
def test_smld_is_minimised_by_the_exact_score(sigma: float) -> None:
    x0, noise = draw(200_000)
    level = torch.ones(len(x0), dtype=torch.long)
    sigmas = torch.tensor([99.0, sigma], dtype=torch.float64)
    check_minimiser(lambda model: smld_loss(model, x0, level, noise, sigmas), 1.0, sigma, lambda raw, x: raw)


@pytest.mark.parametrize("likelihood", [False, True])
@pytest.mark.parametrize("name", SDES)
def test_score_matching_is_minimised_by_the_exact_score(name: str, likelihood: bool) -> None:
    x0, noise = draw(200_000)
    for time in (0.1, 0.5, 1.0):
        t = torch.full((len(x0),), time, dtype=torch.float64)
        alpha, sigma = (float(v[0]) for v in SDES[name].marginal(t[:1]))
        check_minimiser(
            lambda score, t=t: score_loss(score, x0, t, noise, SDES[name], likelihood_weighting=likelihood),
            alpha,
            sigma,
            lambda raw, x: raw,
        )


def test_denoising_of_fixed_inputs() -> None:
    x0, noise = torch.tensor([[1.0, -2.0], [0.5, 0.0]]), torch.tensor([[0.3, 0.1], [-1.0, 2.0]])
    t, bars = torch.tensor([1, 0]), torch.tensor([0.81, 0.36])
    want = 0.0
    for i, (a, s) in enumerate([(0.6, 0.8), (0.9, math.sqrt(0.19))]):
        for j in range(2):
            x = a * float(x0[i, j]) + s * float(noise[i, j])
            want += ((2 * x + int(t[i])) - (a * float(noise[i, j]) - s * float(x0[i, j]))) ** 2 / 4
    found = denoising_loss(lambda x, t: 2 * x + t[:, None], x0, t, noise, bars, "v_prediction")
    assert float(found) == pytest.approx(want, rel=1e-6)
    with pytest.raises(OptionError, match="unknown target of denoising"):
        denoising_loss(lambda x, t: x, x0, t, noise, bars, "flow")


def test_score_losses_of_fixed_inputs() -> None:
    x0, z, t = (torch.tensor(v, dtype=torch.float64) for v in ([[0.5]], [[-1.5]], [0.3]))
    beta = 0.1 + 0.3 * 19.9
    integral = 0.1 * 0.3 + 19.9 * 0.3**2 / 2
    marginals = {
        "ve": (1.0, 0.01 * 1000**0.3, 2 * math.log(1000) * (0.01 * 1000**0.3) ** 2),
        "vp": (math.exp(-integral / 2), math.sqrt(1 - math.exp(-integral)), beta),
        "sub-vp": (math.exp(-integral / 2), 1 - math.exp(-integral), beta * (1 - math.exp(-2 * integral))),
    }
    for name, (alpha, sigma, g2) in marginals.items():
        x = alpha * 0.5 + sigma * -1.5
        missed = (3 * x + 0.3) - 1.5 / sigma
        plain, weighted = (
            float(score_loss(lambda x, t: 3 * x + t[:, None], x0, t, z, SDES[name], likelihood_weighting=flag))
            for flag in (False, True)
        )
        assert plain == pytest.approx(sigma**2 * missed**2, rel=1e-9), name
        assert weighted == pytest.approx(g2 * missed**2, rel=1e-9), name
    sigmas = torch.tensor([0.2, 0.7], dtype=torch.float64)
    found = smld_loss(lambda x, sigma: 3 * x + sigma[:, None], x0, torch.tensor([1]), z, sigmas)
    assert float(found) == pytest.approx(0.49 * ((3 * (0.5 - 0.7 * 1.5) + 0.7) - 1.5 / 0.7) ** 2, rel=1e-9)


@pytest.mark.parametrize("name", SDES)
def test_the_diffusion_is_that_of_the_marginals(name: str) -> None:
    """d sigma^2 / dt = 2 f sigma^2 + g^2, with f = d log alpha / dt: by differences of what the schedule says."""
    t, h = torch.tensor([0.01, 0.2, 0.6, 0.99], dtype=torch.float64), 1e-5
    (a_low, s_low), (a_high, s_high) = SDES[name].marginal(t - h), SDES[name].marginal(t + h)
    growth = (s_high**2 - s_low**2) / (2 * h)
    f = (a_high.log() - a_low.log()) / (2 * h)
    torch.testing.assert_close(SDES[name].g2(t), growth - 2 * f * SDES[name].marginal(t)[1] ** 2, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", SDES)
def test_times_by_lambda_are_drawn_from_their_density(name: str) -> None:
    """Integrals over time agree, whichever way the times are drawn: so does the likelihood's loss."""
    first = 1e-3
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    even, chosen = first + (1 - first) * u, SDES[name].times_by_lambda(u, first)
    assert float(chosen.min()) > first - 1e-12
    assert float(chosen.max()) <= 1
    plain = float((even**2).mean()) * (1 - first)
    assert float((chosen**2 / SDES[name].density_by_lambda(chosen, first)).mean()) == pytest.approx(plain, rel=1e-3)


def test_the_weight_of_the_likelihood_is_a_constant_where_the_variance_explodes() -> None:
    x0, noise = draw(64)
    t = torch.linspace(0.01, 1, 64, dtype=torch.float64)
    plain, weighted = (
        float(score_loss(lambda x, t: x, x0, t, noise, SDES["ve"], likelihood_weighting=flag))
        for flag in (False, True)
    )
    assert weighted == pytest.approx(2 * math.log(1000) * plain, rel=1e-9)


def test_networks_of_noise_and_of_sigma_stand_for_scores() -> None:
    x, t = torch.ones(2, 2).double(), torch.tensor([0.2, 0.9]).double()
    told: list[torch.Tensor] = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        told.append(t)
        return 2 * x

    sigma = SDES["vp"].marginal(t)[1]
    torch.testing.assert_close(score_of_epsilon(network, SDES["vp"], 999.0)(x, t), -2 * x / sigma[:, None])
    torch.testing.assert_close(score_by_sigma(network, SDES["ve"])(x, t), 2 * x)
    torch.testing.assert_close(told[0], 999 * t)
    torch.testing.assert_close(told[1], SDES["ve"].marginal(t)[1])


def test_the_classifiers_loss_of_fixed_inputs() -> None:
    x0, noise = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    t, labels, bars = torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.64, 0.36])
    want, told = 0.0, []
    for i, (a, s) in enumerate([(0.8, 0.6), (0.6, 0.8)]):
        logits = [a * float(x0[i, j]) + s * float(noise[i, j]) for j in range(2)]
        want += (math.log(sum(math.exp(v) for v in logits)) - logits[int(labels[i])]) / 2
    found = noisy_cross_entropy(lambda x, t: told.append(t) or x, x0, labels, t, noise, bars)
    assert float(found) == pytest.approx(want, rel=1e-6)
    assert told[0].dtype == torch.float32


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_trains_on_the_schedule_that_it_tells_samplers(name: str) -> None:
    """What the network sees at its times has the schedule's signal and noise, and the exact answer costs least."""
    objective = make_objective(name)
    schedule = schedule_from_diffusers(objective.scheduler)
    prediction = prediction_from_diffusers(objective.scheduler)
    x0, noise = (part.float() for part in draw(4096))
    t = objective.times(4096, torch.Generator().manual_seed(0))

    def answer(wrong: float):
        def model(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            # in float32 the last time may lie a rounding outside
            inside = time.double().numpy().clip(*schedule.t_range)
            alpha, sigma = (torch.from_numpy(f(inside))[:, None] for f in (schedule.alpha, schedule.sigma))
            torch.testing.assert_close(x.double(), alpha * x0 + sigma * noise, rtol=1e-4, atol=1e-4)
            score = exact_score(x.double(), alpha, sigma)
            eps = -sigma * score
            v = (eps - sigma * x) / alpha
            raw = {"epsilon": eps, "score": score, "v_prediction": v}[prediction] * (1 + wrong)
            return (torch.cat([raw, 0 * raw], 1) if objective.learned_variance else raw).float()

        return model

    right, *others = (float(objective.loss(answer(wrong), x0, t, noise)) for wrong in (0.0, 0.2, -0.2))
    assert right < min(others)


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(OptionError, match="unknown loss"):
        make_objective("vlb")
