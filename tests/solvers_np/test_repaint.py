"""RePaint: the course of its jumps, its numbers beside torch, and what it is for on a Gaussian that is known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from diffusers_peer import Diffusers

from dpmrt.errors import OptionError, PlanError
from dpmrt.runtime.editing.known import KnownRegion
from dpmrt.solvers_np import SOLVERS, StepPlan, compile_plan, make_noise, make_schedule, plan_from_diffusers, run_plan
from dpmrt.solvers_np.plans.parts import state_levels
from dpmrt.solvers_np.plans.repaint import repaint

LINEAR = make_schedule("linear")


def course(steps: int, jump: int, times: int) -> list[int]:
    """Return how many steps are left after each move, written from the paper's figure: down one, or up a jump."""
    left, seen, jumps = steps, [steps], dict.fromkeys(range(1, steps - jump + 1, jump), times - 1)
    while left:
        left -= 1
        seen.append(left)
        if jumps.get(left, 0):
            jumps[left] -= 1
            left += jump
            seen.append(left)
    return seen


def left_after(plan: StepPlan, steps: int) -> list[int]:
    """Return the same of a plan, read off its levels."""
    levels = state_levels(plan)
    ratios = sorted({round(s / a, 9) for a, s in levels})  # type: ignore[misc]
    assert len(ratios) == steps + 1
    return [ratios.index(round(s / a, 9)) for a, s in levels]  # type: ignore[misc]


@pytest.mark.parametrize(("steps", "jump", "times"), [(5, 1, 2), (10, 3, 2), (10, 3, 4), (12, 10, 3), (7, 2, 1)])
@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_the_course_is_the_papers(steps: int, jump: int, times: int, solver: str) -> None:
    plan = repaint(compile_plan(solver, LINEAR, steps), jump, times)
    assert left_after(plan, steps) == course(steps, jump, times)
    called = plan.out >= 0
    assert (plan.noise[~called] > 0).all()
    assert (plan.weights[~called, 0] < 1).all()


def test_the_network_is_asked_at_the_released_schedules_times(peer: Diffusers) -> None:
    """diffusers lists the times as the authors' code does: the network is asked where the next one is lower."""
    scheduler = peer.scheduler({"_class_name": "RePaintScheduler"})
    for steps, jump, times in ((20, 5, 3), (50, 10, 10), (10, 1, 2)):
        scheduler.set_timesteps(steps, jump, times)
        theirs = [*(scheduler.timesteps.numpy() // (1000 // steps)).tolist(), -1]
        asked = [before for before, after in itertools.pairwise(theirs) if after < before]
        known = [k * (1000 // steps) for k in range(steps)][::-1]
        plan = repaint(compile_plan("ddpm", LINEAR, steps, grid="times", times=known), jump, times)
        assert (plan.timesteps // (1000 // steps)).tolist() == asked


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_a_step_is_diffusers_step(peer: Diffusers, eta: float) -> None:
    """RePaintScheduler.step, which takes one noise for what is known and for what is not."""
    torch, steps = peer.torch, 10
    scheduler = peer.package.RePaintScheduler(eta=eta, clip_sample=False)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(steps, 2, 1)
    config = {"_class_name": "DDIMScheduler", "clip_sample": False, "beta_schedule": "linear"}
    plan = plan_from_diffusers(config, steps, eta=eta)
    rng = np.random.default_rng(4)
    image, x, mask = rng.standard_normal((2, 3)), rng.standard_normal((2, 3)), np.array([1.0, 0.0, 0.0])
    draws = rng.standard_normal((steps, 2, 3))

    state = torch.from_numpy(x)
    for t, draw in zip(scheduler.timesteps, draws):
        with pytest.MonkeyPatch.context() as patch:
            module = __import__(type(scheduler).__module__, fromlist=["x"])
            patch.setattr(module, "randn_tensor", lambda *a, draw=draw, **k: torch.from_numpy(draw))
            raw = torch.sin(3 * state) * 0.5
            given, keep = torch.from_numpy(image), torch.from_numpy(1 - mask)
            state = scheduler.step(raw, int(t), state, given, keep).prev_sample

    class Twice:
        """The same draws, for the plan and, apart, for the hook."""

        def __init__(self) -> None:
            self.at = 0

        def normal(self, shape: Any) -> Any:
            self.at += 1
            return draws[self.at - 1]

    hook = KnownRegion(image, mask, Twice())
    got = run_plan(plan, lambda x, t: np.sin(3 * x) * 0.5, x, noise=draws if eta else None, hooks=[hook])
    np.testing.assert_allclose(got, state.numpy(), atol=2e-6)
    np.testing.assert_array_equal(got[:, 1:], image[:, 1:])


def test_the_whole_course_is_that_of_an_independent_implementation(peer: Diffusers) -> None:
    """Algorithm 1 of Lugmayr et al. 2022 in torch, with jumps, for DDPM's steps over every training time."""
    torch, T, jump, times = peer.torch, 8, 2, 3
    betas = torch.linspace(0.02, 0.4, T, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    schedule = make_schedule("linear").from_betas(betas.numpy())
    rng = np.random.default_rng(7)
    image, x, mask = rng.standard_normal((1, 4)), rng.standard_normal((1, 4)), np.array([0.0, 1.0, 1.0, 0.0])
    draws = rng.standard_normal((200, 1, 4))
    taken = iter(draws)

    def net(state: Any) -> Any:
        return 0.4 * state + 0.1

    state, known, keep = torch.from_numpy(x), torch.from_numpy(image), torch.from_numpy(1 - mask)
    left = course(T, jump, times)
    for before, after in itertools.pairwise(left):
        if after > before:  # one draw for the whole jump, whose noises add up
            share = bars[after - 1] / bars[before - 1]
            state = share.sqrt() * state + (1 - share).sqrt() * torch.from_numpy(next(taken))
            continue
        t, bar = before - 1, bars[before - 1]
        lower = bars[t - 1] if t else torch.ones((), dtype=torch.float64)
        mean = (state - betas[t] / (1 - bar).sqrt() * net(state)) / (1 - betas[t]).sqrt()
        sigma = ((1 - lower) / (1 - bar) * betas[t]).sqrt()
        unknown = mean + sigma * torch.from_numpy(next(taken)) if t else mean
        noised = lower.sqrt() * known
        if t:
            noised = noised + (1 - lower).sqrt() * torch.from_numpy(next(taken))
        state = keep * noised + (1 - keep) * unknown

    plan = repaint(compile_plan("ddpm", schedule, T, grid="times", times=list(range(T))[::-1]), jump, times)

    class Draws:
        def __init__(self) -> None:
            self.draws = iter(draws)

        def normal(self, shape: Any) -> Any:
            return next(self.draws)

    source = Draws()
    got = run_plan(plan, lambda x, t: net(x), x, noise=source, hooks=[KnownRegion(image, mask, source)])
    np.testing.assert_allclose(got, state.numpy(), atol=1e-10)


RHO, GIVEN = 0.9, 1.3
COVARIANCE = np.array([[1.0, RHO], [RHO, 1.0]])


def _conditional(plan: StepPlan, seed: int, count: int) -> tuple[float, float]:
    """Return mean and variance of the second entry, inpainted with the exact score beside a known first."""
    levels = {float(t): (a, s) for t, a, s in zip(plan.t, plan.alpha, plan.sigma)}

    def eps(x: Any, t: Any) -> Any:
        alpha, sigma = levels[float(t[0])]
        return sigma * x @ np.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * np.eye(2))

    source = make_noise("numpy", seed)
    hook = KnownRegion(np.array([[GIVEN, 0.0]]), np.array([0.0, 1.0]), source)
    x = source.normal((count, 2)).astype(np.float64)
    got = run_plan(plan, eps, x, noise=source, hooks=[hook])
    assert (got[:, 0] == GIVEN).all()
    return float(got[:, 1].mean()), float(got[:, 1].var())


def test_resampling_comes_nearer_to_the_exact_conditional() -> None:
    """Of a Gaussian of correlation 0.9: plain replacement misses mean and variance, RePaint much less so."""
    plan, count = compile_plan("ddpm", LINEAR, 40), 5_000
    mean, variance = RHO * GIVEN, 1 - RHO**2
    plain, short, long = (
        tuple(abs(a - b) for a, b in zip(_conditional(made, 11, count), (mean, variance)))
        for made in (plan, repaint(plan, 1, 20), repaint(plan, 4, 20))
    )
    error = 4 * np.sqrt(2 * variance / count)  # four standard errors, of the mean and more than of the variance
    assert plain[0] > 0.3 + error
    assert short[0] < 0.1 - error
    assert long[0] < 0.4 * plain[0] - error
    assert long[1] < 0.03 - error / 4 < plain[1] / 2


def test_what_cannot_jump_is_refused() -> None:
    for solver in ("dpmsolver++", "unipc", "lms", "deis", "pndm"):
        plan = compile_plan(solver, LINEAR, 6)
        with pytest.raises(PlanError, match=r"RePaint needs a solver that keeps nothing.*\n.*keeps earlier outputs"):
            repaint(plan, 1, 2, calls=SOLVERS[solver].most_calls)
    plan = compile_plan("ddpm", LINEAR, 5)
    with pytest.raises(OptionError, match=r"jump is as long as the run\n.*a jump of 5 over 5 steps\n.*1 to 4"):
        repaint(plan, 5, 2)
    with pytest.raises(OptionError, match="repaint's jump length is out of range"):
        repaint(plan, 0, 2)
    with pytest.raises(OptionError, match="repaint's resamples is out of range"):
        repaint(plan, 1, 0)
    blind = compile_plan("flow-euler", make_schedule("flow"), 5, prediction="flow")
    with pytest.raises(OptionError, match="cannot jump over this plan"):
        repaint(blind, 4, 2)


@pytest.mark.parametrize("solver", ["heun", "euler-ancestral", "dpmsolver++2s-ancestral"])
def test_other_solvers_of_one_step_jump_too(solver: str) -> None:
    plan = compile_plan(solver, LINEAR, 5)
    jumped = repaint(plan, 2, 2, calls=SOLVERS[solver].most_calls)
    assert jumped.calls > plan.calls
    assert not set(jumped.timesteps) - set(plan.timesteps)
    assert StepPlan.from_bytes(jumped.to_bytes()).digest() == jumped.digest()
