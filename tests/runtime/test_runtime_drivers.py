"""Drivers by name, the network as a function, and states to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime import load
from dpmrt.runtime.drivers import DRIVERS, Driven, NetworkModel, find_driver
from dpmrt.solvers_np import Hook, StateView, plan_from_diffusers, run_plan


class _Report:
    def __init__(self, calls: int) -> None:
        self.calls = calls

    def to_json(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def plot(self, path: str | Path) -> Path:
        return Path(path)


def two_calls(
    model: NetworkModel, x_T: NDArray[Any], *, noise: Any, callback: Any = None, gain: float = 1.0
) -> Driven:
    """Drive two calls, the second at what the first gave, and add fresh noise."""
    x = model(x_T, 900)
    return Driven(gain * model(x, 100) + noise.normal(model.shape), _Report(model.calls))


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DRIVERS, "two-calls", (__name__, "two_calls"))  # type: ignore[arg-type]


@pytest.mark.usefixtures("driven")
def test_a_driver_is_reached_by_its_name_and_conditioned_like_a_sample() -> None:
    with load("digits") as pipeline:
        driven = pipeline.drive(2, solver="two-calls", seed=3, label=[1, 2], guidance=2.0, gain=0.5)
        again = pipeline.sample(2, solver="two-calls", seed=3, label=[1, 2], guidance=2.0, gain=0.5)
        model = pipeline.model(2, label=[1, 2], guidance=2.0)
        from dpmrt.solvers_np import make_noise

        stream = make_noise("torch-cpu", 3)
        x = stream.normal(model.shape)
        expected = 0.5 * model(model(x, 900), 100) + stream.normal(model.shape)
    np.testing.assert_array_equal(driven.samples, again)
    np.testing.assert_allclose(driven.samples, expected, atol=1e-6)
    assert driven.report.to_json() == {"calls": 2}
    assert driven.samples.shape == (2, 1, 16, 16)


@pytest.mark.usefixtures("driven")
def test_a_driver_refuses_what_only_a_plan_understands() -> None:
    with load("digits") as pipeline:
        with pytest.raises(OptionError, match=r"without a fixed grid takes no such argument\n  got: +steps"):
            pipeline.sample(solver="two-calls", steps=5)
        with pytest.raises(OptionError, match=r"no driver has this name\n  got: +'ddim'"):
            pipeline.drive(solver="ddim")
    assert find_driver("ddim") is None
    assert find_driver(None) is None


def test_the_model_gives_what_the_plan_s_first_call_gives() -> None:
    with load("digits") as pipeline:
        plan = pipeline.plan(steps=4)
        model = pipeline.model(3, label=[0, 1, 2], guidance=3.0)
        x = np.random.default_rng(0).standard_normal(model.shape).astype(np.float32)
        through = run_plan(plan, model, x)
        whole = pipeline.sample(3, x_T=x, plan=plan, label=[0, 1, 2], guidance=3.0)
        assert model.calls == plan.calls
        assert model.prediction == pipeline.manifest.prediction
        assert model.schedule.train_steps == 1000
        wide = model(x.astype(np.float64), 500)
        np.testing.assert_array_equal(wide, model(x, 500))
        assert wide.dtype == np.float64
    np.testing.assert_array_equal(through, whole)


def test_a_model_refuses_states_and_times_that_are_none() -> None:
    with load("digits") as pipeline:
        model = pipeline.model(2)
        with pytest.raises(ArrayError, match="the state does not fit the model"):
            model(np.zeros((3, 1, 16, 16), np.float32), 1)
        with pytest.raises(ArrayError, match="the state does not fit the model"):
            model(np.zeros(model.shape, int), 1)
        with pytest.raises(OptionError, match="one time for all samples"):
            model(np.zeros(model.shape, np.float32), np.array([1.0, 2.0]))
        with pytest.raises(OptionError, match=r"no such argument\n  got: +seed"):
            pipeline.model(2, seed=3)


def test_a_state_to_start_from_is_taken_as_it_is() -> None:
    with load("digits") as pipeline:
        x = np.random.default_rng(0).standard_normal((2, 1, 16, 16)).astype(np.float32)
        plan = plan_from_diffusers({"_class_name": "EulerDiscreteScheduler", "beta_schedule": "linear"}, 10)
        assert plan.init_scale > 2
        given = pipeline.sample(2, plan=plan, start=x * np.float32(plan.init_scale))
        np.testing.assert_array_equal(given, pipeline.sample(2, plan=plan, x_T=x))
        with pytest.raises(OptionError, match="x_T and start"):
            pipeline.sample(2, x_T=x, start=x)
        with pytest.raises(ArrayError, match=r"the state to start from \(start\) has the wrong shape"):
            pipeline.sample(3, start=x)


def test_hooks_reach_a_pipeline_s_run() -> None:
    class Half(Hook):
        def state(self, step: StateView) -> None:
            if step.last:
                step.x *= 0.5

    with load("digits") as pipeline:
        np.testing.assert_array_equal(
            pipeline.sample(2, steps=3, hooks=[Half()]), pipeline.sample(2, steps=3) * np.float32(0.5)
        )
        with pytest.raises(OptionError, match="hook"):
            pipeline.sample(2, steps=3, hooks=[1])  # type: ignore[list-item]


@pytest.mark.usefixtures("driven")
def test_the_command_line_samples_with_a_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from click.testing import CliRunner

    from dpmrt.runtime.cli import main

    out = tmp_path / "a.npy"
    asked = ["sample", "digits", "-o", str(out), "-n", "2", "--solver", "two-calls", "--option", "gain=0.5"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    with load("digits") as pipeline:
        np.testing.assert_array_equal(np.load(out), pipeline.sample(2, solver="two-calls", gain=0.5))
    for flag, value in (("--save-plan", str(tmp_path / "p")), ("--steps", "4")):
        assert CliRunner().invoke(main, [*asked, flag, value]).exit_code == 1
