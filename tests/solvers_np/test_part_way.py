"""Plans in parts: entered part-way as diffusers' image-to-image pipelines do, cut, joined, and inverted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from diffusers_peer import Diffusers
from problems import BIMODAL, network

from dpmrt.errors import OptionError, PlanError
from dpmrt.solvers_np import (
    SOLVERS,
    StepPlan,
    compile_inverse,
    compile_plan,
    make_schedule,
    plan_from_diffusers,
    run_plan,
)
from dpmrt.solvers_np.plans.parts import cut, entries, joined, one_step_entries, state_levels

LINEAR = make_schedule("linear")


def _network(x: Any) -> Any:
    return x / (1 + x * x) + 0.1


CASES: list[tuple[str, int, float, dict[str, Any]]] = [
    ("DPMSolverMultistepScheduler", 10, 0.6, {}),
    ("DPMSolverMultistepScheduler", 10, 0.65, {"solver_order": 3, "use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", 20, 0.3, {"solver_order": 2, "solver_type": "heun"}),
    ("DPMSolverMultistepScheduler", 20, 0.75, {"euler_at_final": True}),
    ("DPMSolverMultistepScheduler", 10, 0.1, {}),
    ("DPMSolverMultistepScheduler", 12, 0.5, {"algorithm_type": "sde-dpmsolver++"}),
    ("UniPCMultistepScheduler", 10, 0.6, {"solver_order": 3}),
    ("UniPCMultistepScheduler", 10, 0.8, {"disable_corrector": [0, 4]}),
    ("DEISMultistepScheduler", 10, 0.7, {}),
    ("DEISMultistepScheduler", 20, 0.5, {"solver_order": 3}),
    ("DDIMScheduler", 10, 0.6, {"clip_sample": False, "eta": 0.5}),
    ("DDPMScheduler", 10, 0.4, {"clip_sample": False}),
    ("EulerDiscreteScheduler", 10, 0.55, {}),
    ("EulerAncestralDiscreteScheduler", 10, 0.6, {}),
    ("HeunDiscreteScheduler", 8, 0.5, {}),
]


@pytest.mark.parametrize(("name", "steps", "strength", "options"), CASES)
def test_part_of_the_steps_is_what_image_to_image_pipelines_take(
    peer: Diffusers, name: str, steps: int, strength: float, options: dict[str, Any]
) -> None:
    """As `get_timesteps` of diffusers' pipelines, and `add_noise` for where they start."""
    torch = peer.torch
    config = {"_class_name": name, **options}
    plan = plan_from_diffusers(config, steps, strength=strength)
    scheduler = peer.scheduler(config, steps, double=True)
    skipped = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    times = scheduler.timesteps[skipped:]
    assert plan.calls == len(times)
    np.testing.assert_allclose(plan.timesteps, times.numpy(), atol=1e-3)

    rng = np.random.default_rng(5)
    image, z, draws = rng.standard_normal((2, 5)), rng.standard_normal((2, 5)), rng.standard_normal((40, 2, 5))
    started = scheduler.add_noise(torch.from_numpy(image), torch.from_numpy(z), times[:1].repeat(2))
    start = plan.start[0] * image + plan.start[1] * z
    np.testing.assert_allclose(start, started.numpy(), rtol=1e-5, atol=1e-6)

    state, taken = torch.from_numpy(start), iter(draws)
    module = __import__(type(scheduler).__module__, fromlist=["x"])
    eta = {"eta": options["eta"]} if "eta" in options else {}
    with pytest.MonkeyPatch.context() as patch, peer.float64(scheduler, True):
        patch.setattr(module, "randn_tensor", lambda *a, **k: torch.from_numpy(next(taken)), raising=False)
        for t in times:
            raw = _network(scheduler.scale_model_input(state, t))
            state = scheduler.step(raw, t, state, **eta).prev_sample
    source = iter(draws)
    noise = (lambda shape: next(source)) if plan.stochastic else None
    got = run_plan(plan, lambda x, t: _network(x), start, noise=noise)
    np.testing.assert_allclose(got, state.numpy(), rtol=2e-4, atol=1e-5)


def test_strength_says_what_is_wrong() -> None:
    config = {"_class_name": "DPMSolverMultistepScheduler"}
    for strength in (0.0, 1.1, -1, math.nan):
        for named in (config, {"_class_name": "DDIMScheduler"}):
            with pytest.raises(OptionError, match=r"strength is out of range"):
                plan_from_diffusers(named, 10, strength=strength)
    with pytest.raises(OptionError, match=r"strength leaves no step\n.*0.05 of 10 steps"):
        plan_from_diffusers(config, 10, strength=0.05)
    with pytest.raises(PlanError, match=r"starting part-way needs a solver that keeps nothing.*\n.*'pndm'"):
        plan_from_diffusers({"_class_name": "PNDMScheduler"}, 10, strength=0.5)
    whole = plan_from_diffusers({"_class_name": "PNDMScheduler"}, 10, strength=1.0)
    assert whole.digest() == plan_from_diffusers({"_class_name": "PNDMScheduler"}, 10).digest()


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_plans_are_cut_where_they_may_be_entered_and_joined_again(solver: str) -> None:
    plan = compile_plan(solver, LINEAR, 6)
    rows = entries(plan)
    assert rows[0] == 0
    parts = [cut(plan, a, b) for a, b in zip(rows, [*rows[1:], plan.rows])]
    assert joined(parts).digest() == plan.digest()
    assert [level is None for level in state_levels(plan)] == [False] * (plan.rows + 1)
    if len(rows) == 6:
        assert one_step_entries(plan, SOLVERS[solver].most_calls, "this") == rows


def test_a_level_before_a_row_that_only_adds_noise_is_worked_out() -> None:
    plan = compile_plan("heun", LINEAR, 6, s_churn=3.0)
    calm = compile_plan("heun", LINEAR, 6)
    levels = [level for level, out in zip(state_levels(plan), plan.out) if out < 0]
    assert levels
    expected = [state_levels(calm)[row] for row in entries(calm)]
    for level in levels:
        assert min(math.dist(level, other) for other in expected if other) < 1e-9  # type: ignore[arg-type]


ENCODERS = {"ddim": 1.0, "euler": 1.0, "dpmsolver++": 2.0, "dpmsolver": 2.0, "heun": 2.0, "unipc": 2.0, "deis": 2.0}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", sorted(ENCODERS))
def test_what_is_inverted_is_found_again_and_the_error_falls_at_the_solvers_order(
    solver: str, prediction: str
) -> None:
    x0 = np.random.default_rng(0).choice([-1.1, 0.8], size=(4, 6)) + 0.1
    model, errors = network(BIMODAL, LINEAR, prediction), []
    for steps in (50, 100):
        up = compile_inverse(solver, LINEAR, steps, prediction=prediction)
        down = compile_plan(solver, LINEAR, steps, prediction=prediction)
        noise = run_plan(up, model, up.start[0] * x0)
        assert up.end == down.start
        assert 0.3 < noise.std() < 3
        errors.append(float(np.sqrt(np.mean((run_plan(down, model, noise) - x0) ** 2))))
    assert errors[1] < 0.04
    assert np.log2(errors[0] / errors[1]) > ENCODERS[solver] - 0.6


@pytest.mark.parametrize("grid", ["trailing", "leading", "karras", "logsnr"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_an_inverse_climbs_the_grid_of_its_sampler(grid: str, steps: int) -> None:
    for solver in ("ddim", "dpmsolver++"):
        up, down = (f(solver, LINEAR, steps, grid=grid) for f in (compile_inverse, compile_plan))
        assert up.end == down.start
        ratios = [s / a for a, s in state_levels(up)]  # type: ignore[misc]
        assert ratios == sorted(ratios)
        assert np.isfinite(up.timesteps).all()


@pytest.mark.parametrize(
    ("solver", "options", "text"),
    [
        ("ddpm", {}, r"a solver that adds noise cannot invert\n.*'ddpm'\n.*without noise"),
        ("sde-dpmsolver++", {}, r"a solver that adds noise cannot invert"),
        ("ddim", {"eta": 0.5}, r"a grid whose noise rises takes no eta"),
        ("euler-ancestral", {}, r"noise"),
        ("heun", {"s_churn": 1.0}, r"noise rises takes no churn"),
        ("nonesuch", {}, r"unknown solver"),
    ],
)
def test_what_cannot_invert_is_refused(solver: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        compile_inverse(solver, LINEAR, 5, **options)


def test_an_inverse_is_a_plan_like_any_other() -> None:
    plan = compile_inverse("dpmsolver++", LINEAR, 5)
    assert StepPlan.from_bytes(plan.to_bytes()).digest() == plan.digest()
    assert plan.meta["inverse"] is True
