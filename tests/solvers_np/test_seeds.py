"""The same seed gives diffusers' own sample: the plan draws when its scheduler draws, used or not."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest

from dpmrt.solvers_np import TorchCPUNoise, plan_from_diffusers, run_plan

SHAPE = (2, 3, 8, 8)
PLAIN = {"clip_sample": False}
CASES = [
    ("DDPMScheduler", PLAIN, {}),
    ("DDIMScheduler", PLAIN, {"eta": 0.6}),
    ("EulerDiscreteScheduler", {}, {"s_churn": 4.0, "s_tmin": 0.2, "s_tmax": 10.0}),
    ("EulerAncestralDiscreteScheduler", {}, {}),
    ("KDPM2AncestralDiscreteScheduler", {}, {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
    ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
    ("EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
    ("EDMEulerScheduler", {}, {"s_churn": 4.0, "s_tmin": 0.2, "s_tmax": 10.0}),
    ("SASolverScheduler", {}, {}),
    ("LCMScheduler", PLAIN, {}),
    ("TCDScheduler", PLAIN, {"eta": 0.4}),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, {}),
]


@pytest.mark.parametrize(("name", "config", "given"), CASES, ids=[case[0] for case in CASES])
def test_one_seed_one_sample(peer: Any, name: str, config: dict[str, Any], given: dict[str, Any]) -> None:
    torch, steps = peer.torch, 8
    plan = plan_from_diffusers({"_class_name": name, **config, **given}, steps)
    ours, theirs = TorchCPUNoise(5), torch.Generator().manual_seed(5)
    scheduler = peer.scheduler({"_class_name": name, **config}, steps)
    takes = inspect.signature(scheduler.step).parameters
    step = {key: value for key, value in given.items() if key in takes}
    x = torch.randn(SHAPE, generator=theirs) * getattr(scheduler, "init_noise_sigma", 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(torch.tanh(scaled), t, x, generator=theirs, **step).prev_sample
    start = plan.init_scale * ours.normal(SHAPE).astype(np.float64)
    got = run_plan(plan, lambda x, t: np.tanh(x), start.astype(np.float32), noise=ours)
    np.testing.assert_allclose(got, x.numpy(), rtol=2e-3, atol=2e-4 * float(x.abs().max()))
