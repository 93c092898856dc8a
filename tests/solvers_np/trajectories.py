"""A plan and diffusers' scheduler, stepped side by side on the same drawn network outputs and noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from diffusers_peer import Config, Diffusers

from dpmrt.solvers_np import StepPlan, plan_from_diffusers, run_plan
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers.schedule import SCHEDULE_KEYS, read_schedule

SHAPE = (2, 3, 2, 4)  # diffusers' DPM-Solvers take three channels of an output with a variance
#: ladders whose times diffusers truncates to whole ones
TRUNCATED = ("use_exponential_sigmas", "use_beta_sigmas", "use_karras_sigmas", "use_lu_lambdas")
#: classes that give a rescaled schedule's last time some signal
_LAST_KEPT = (
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "UniPCMultistepScheduler",
)


def drawn(plan: StepPlan, *, positive: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an initial state, an output for each call and noise for each row; the second parts may be positive."""
    rng = np.random.default_rng(plan.calls)
    whole = (SHAPE[0], plan.parts * SHAPE[1], *SHAPE[2:])
    x, outputs, noise = (rng.standard_normal(n) for n in (SHAPE, (plan.calls, *whole), (plan.rows, *SHAPE)))
    if plan.parts == 2:
        second = outputs[:, :, SHAPE[1] :]
        second[...] = np.abs(second) + 0.01 if positive else np.tanh(second)
    return x, outputs, noise


def states_of(plan: StepPlan, x: np.ndarray, outputs: np.ndarray, noise: np.ndarray) -> list[np.ndarray]:
    """Return the state after each call."""
    answers, states = iter(outputs), []
    run_plan(
        plan,
        lambda x, t: next(answers),
        x,
        noise=noise[plan.noisy] if plan.stochastic else None,
        callback=lambda event: states.append(event.x.copy()),
    )
    return states


def assert_parity(peer: Diffusers, config: Config, steps: int, **limits: Any) -> None:
    """Hold our plan against diffusers in float64 and in float32: times, scales and states; see `_compare`."""
    try:
        _compare(peer, config, steps, **limits)
    except Exception as error:
        raise AssertionError(f"{error}\nreproduce with steps={steps}, config={config}") from error


def _compare(
    peer: Diffusers,
    config: Config,
    steps: int,
    *,
    wide: float = 1e-9,
    own: float = 1e-5,
    single: float = math.inf,
    lossy: float = 0.0,
    ill: float = 0.0,
    asked: bool = True,
) -> None:
    """Bound the drifts of the states: `wide` in float64, `own` of our float32 and `single` of both from each other.

    diffusers' own float32 is off by some drift too: `lossy` times it is allowed to our float32, `ill` times it in
    float64. Without `asked`, what the network is told is not compared.
    """
    plan = plan_from_diffusers(config, steps)
    data = drawn(plan, positive=config.get("variance_type") == "learned")
    narrow_data = tuple(array.astype(np.float32) for array in data)
    exact, narrow = peer.run(config, steps, *data, table=our_table(config)), peer.run(config, steps, *narrow_data)
    if asked:
        for run, rtol, atol in ((exact, 1e-10, 1e-8), (narrow, 3e-5, 5e-3)):
            if any(config.get(ladder) for ladder in TRUNCATED) and (plan.timesteps == plan.timesteps.round()).all():
                atol = 1.0  # which whole number a logarithm falls below; test_diffusers_sigmas.py has the times
            np.testing.assert_allclose(plan.timesteps, run.times, rtol=rtol, atol=atol, err_msg="times")
            np.testing.assert_allclose(plan.in_scale[plan.out >= 0], run.scales, rtol=10 * rtol, err_msg="scales")
            np.testing.assert_allclose(plan.init_scale, run.init_scale, rtol=10 * rtol, err_msg="first scale")
    assert np.isfinite(exact.states[-1]).all(), "diffusers gives no number"
    lost = worst(narrow.states, exact.states) if np.isfinite(narrow.states[-1]).all() else math.inf
    drift = worst(states_of(plan, *data), exact.states)
    assert drift <= max(wide, ill * lost if ill else 0.0), f"float64 drift {drift:.3g}, float32 of theirs {lost:.3g}"
    states = states_of(plan, *narrow_data)
    drift = worst(states, exact.states)
    assert drift <= max(own, lossy * lost if lossy else 0.0), f"float32 drift {drift:.3g}, theirs {lost:.3g}"
    if single < math.inf:
        drift = worst(states, narrow.states)
        assert drift <= single, f"float32 drift {drift:.3g} from diffusers in float32"


def our_table(config: Config) -> np.ndarray | None:
    """Return our cumulative alphas where torch's own last digit depends on the machine, else None."""
    if not config.get("rescale_betas_zero_snr") and config.get("beta_schedule") != "sigmoid":
        return None
    keys = {key: config[key] for key in SCHEDULE_KEYS if key in config}
    latent = {}
    if config["_class_name"] in ("LCMScheduler", "TCDScheduler"):
        latent = {"beta_start": 0.00085, "beta_end": 0.012}
    schedule = read_schedule(SchedulerConfig("", keys, {**SCHEDULE_KEYS, **latent}), also=("sigmoid",))
    table = schedule.alphas_cumprod.copy()
    if config.get("rescale_betas_zero_snr") and config["_class_name"] in _LAST_KEPT:
        table[-1] = 2.0**-24
    return table


def worst(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    """Return the greatest relative deviation of any step, by root mean square."""
    return max(
        float(np.sqrt(((a - b.astype(np.float64)) ** 2).mean() / (b.astype(np.float64) ** 2).mean()))
        for a, b in zip(got, want, strict=True)
    )
