"""Bundles whose schedule diffusers does not know are verified under their own plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from test_parity import with_other_weights

from dpmrt.engines import read_parity
from dpmrt.errors import VerificationError
from dpmrt.export import load_source, verify
from dpmrt.export.certificate.cases import call_times
from dpmrt.export.cli.verify import command
from dpmrt.export.torch_sampler import Condition, follow_with_torch, sample_with_torch
from dpmrt.solvers_np import plan_from_diffusers

Export = Callable[..., Path]
OWN: dict[str, dict[str, Any]] = {
    "vp": {"schedule": "vp-linear", "parameters": {"time_scale": 999.0}},
    "sub-vp, with noise": {"schedule": "sub-vp", "solver": "reverse-diffusion", "prediction_type": "score"},
    "smld, with a corrector": {
        "schedule": "smld",
        "parameters": {"train_steps": 20},
        "solver": "predictor-corrector",
        "prediction_type": "score",
    },
    "flow": {"schedule": "flow", "prediction_type": "flow_prediction", "solver": "ddim"},
}
LABELS = Condition({"class_labels": np.array([0, 1])}, {"class_labels": np.array([3, 3])}, 2.0)


@pytest.fixture
def own(exported: Export, tmp_path: Path) -> Callable[[str], Path]:
    def export(name: str) -> Path:
        path = tmp_path / "own" / "scheduler_config.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"_class_name": "DpmrtSchedule", **OWN[name]}))
        return exported(scheduler=path)

    return export


@pytest.mark.parametrize("name", OWN)
def test_a_bundle_of_any_schedule_is_verified(own: Callable[[str], Path], name: str) -> None:
    bundle = own(name)
    report = verify(bundle, steps=5, seed=3)
    assert report.passed, report.backends[0].failures
    assert (report.followed, report.scheduler) == ("plan", "DpmrtSchedule")
    plan = plan_from_diffusers(json.loads((bundle / "scheduler/scheduler_config.json").read_text()), 5)
    (ran,) = report.backends
    assert [step.t for step in ran.steps] == pytest.approx(plan.timesteps.tolist())
    assert ran.drift is not None
    assert ran.drift < 1e-5
    assert read_parity(bundle) == report


def test_other_weights_fail_in_calls_and_in_the_trajectory(own: Callable[[str], Path]) -> None:
    bundle = own("vp")
    with_other_weights(bundle)
    report = verify(bundle, steps=4, write=False)
    assert not report.passed
    failures = report.backends[0].failures
    assert failures[0].startswith("call 1 ")
    assert failures[-1].startswith("trajectory: a relative drift of ")


def test_the_command_says_what_the_trajectory_is_worth(own: Callable[[str], Path]) -> None:
    bundle = own("vp")
    done = CliRunner().invoke(command, [str(bundle), "--steps", "3", "--no-write", "--no-plot"])
    assert done.exit_code == 0, done.output
    assert "trajectory compares the network, not the sampler." in done.stdout
    done = CliRunner().invoke(command, [str(bundle), "--steps", "3", "--no-write", "--no-plot", "--json"])
    assert json.loads(done.stdout)["followed"] == "plan"


def test_calls_are_made_at_times_of_the_schedule(exported: Export) -> None:
    def times(**config: Any) -> tuple[float, ...]:
        return call_times({"_class_name": "DpmrtSchedule", **config})

    assert times(schedule="linear", parameters={"train_steps": 400}) == (0.0, 0.37, 199.0, 399.0)
    assert times(schedule="ve") == pytest.approx((0.0, 0.00037, 0.5, 1.0))
    low, near, middle, high = times(schedule="edm")
    assert low < near < middle < high
    report = verify(exported(), steps=2, write=False, plot=False)
    assert (report.followed, report.backends[0].calls[0].times) == ("scheduler", (0.0,))


@pytest.mark.parametrize("scheduler", [DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler])
def test_torch_under_a_plan_is_torch_under_the_scheduler_that_it_stands_for(checkpoint: Path, scheduler: Any) -> None:
    """So the follower itself is held against a peer where there is one."""
    source = load_source(checkpoint)
    config = {"_class_name": scheduler.__name__, **({} if "DPM" in scheduler.__name__ else {"clip_sample": False})}
    told: list[tuple[int, int]] = []
    wanted = sample_with_torch(source, config, steps=4, batch=2, seed=6, condition=LABELS)
    got = follow_with_torch(
        source,
        plan_from_diffusers(config, 4),
        batch=2,
        seed=6,
        condition=LABELS,
        progress=lambda *event: told.append(event),
    )
    assert told == [(k, 4) for k in range(1, 5)]
    assert got.times == pytest.approx(wanted.times)
    np.testing.assert_allclose(got.x_T, wanted.x_T, rtol=1e-6, atol=1e-7)
    for ours, theirs in zip(got.states, wanted.states, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())
    drawn = [None if trajectory.noise is None else len(trajectory.noise) for trajectory in (got, wanted)]
    assert drawn[0] == drawn[1]


def test_a_sample_of_torch_that_is_none_is_explained(checkpoint: Path) -> None:
    source = load_source(checkpoint)
    with torch.no_grad():
        next(source.model.parameters()).fill_(float("nan"))
    with pytest.raises(VerificationError, match="torch's own sample holds NaN or infinity"):
        follow_with_torch(
            source, plan_from_diffusers({"_class_name": "DDIMScheduler"}, 2), batch=2, seed=0, condition=LABELS
        )
