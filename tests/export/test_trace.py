"""Traced schedulers: the plan does what the scheduler does, with as few slots as it needs, or says why not."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
import unittest.mock
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import randn_like

from dpmrt.errors import OptionError, PlanError, TraceError
from dpmrt.export import trace_scheduler
from dpmrt.export.trace_torch import widened, widened_copy
from dpmrt.solvers_np import StepPlan, compile_plan, plan_from_diffusers, run_plan
from dpmrt.solvers_np.plans.dense import dense_weights

SHAPE = (2, 3, 4, 5)
Config = dict[str, Any]
NO_CLIP = {"clip_sample": False}
SDE = {"algorithm_type": "sde-dpmsolver++"}
DPM_MIN = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}

#: class, options, what goes to step, the most slots that the plan may have
CASES: list[tuple[str, Config, Config, int]] = [
    ("DDPM", NO_CLIP, {}, 1),
    ("DDPM", {**NO_CLIP, "variance_type": "fixed_large", "prediction_type": "v_prediction"}, {}, 1),
    ("DDIM", NO_CLIP, {}, 1),
    ("DDIM", {**NO_CLIP, "prediction_type": "sample"}, {"eta": 0.7}, 1),
    ("DDIMInverse", NO_CLIP, {}, 1),
    ("PNDM", {"skip_prk_steps": True}, {}, 4),
    ("PNDM", {}, {}, 5),
    ("IPNDM", {}, {}, 4),
    ("EulerDiscrete", {}, {}, 1),
    ("EulerDiscrete", {"use_karras_sigmas": True}, {"s_churn": 5.0}, 1),
    ("EulerAncestralDiscrete", {"prediction_type": "v_prediction"}, {}, 1),
    ("HeunDiscrete", {}, {}, 2),
    ("LMSDiscrete", {}, {}, 4),
    ("LMSDiscrete", {"use_karras_sigmas": True}, {"order": 3}, 3),
    ("KDPM2Discrete", {}, {}, 2),
    ("KDPM2AncestralDiscrete", {}, {}, 2),
    *(("DPMSolverMultistep", {"solver_order": order}, {}, order) for order in (1, 2, 3)),
    *(("DPMSolverMultistep", {"solver_order": order, **SDE}, {}, order) for order in (2, 3)),
    *(("DPMSolverMultistep", {"solver_order": order, **DPM_MIN}, {}, order) for order in (2, 3)),
    ("DPMSolverMultistep", {"use_karras_sigmas": True, "prediction_type": "v_prediction"}, {}, 2),
    ("DPMSolverMultistepInverse", {}, {}, 2),
    *(("DPMSolverSinglestep", {"solver_order": order}, {}, min(order, 2)) for order in (1, 2, 3)),
    *(("UniPCMultistep", {"solver_order": order}, {}, order + 1) for order in (1, 2, 3)),
    ("UniPCMultistep", {"solver_order": 2, "predict_x0": False, "final_sigmas_type": "sigma_min"}, {}, 3),
    ("UniPCMultistep", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}, {}, 3),
    *(("DEISMultistep", {"solver_order": order}, {}, order) for order in (1, 2, 3)),
    ("SASolver", {}, {}, 3),
    ("EDMEuler", {}, {"s_churn": 5.0}, 1),
    ("EDMDPMSolverMultistep", {}, {}, 2),
    ("EDMDPMSolverMultistep", SDE, {}, 2),
    ("LCM", {}, {}, 1),
    ("TCD", {}, {"eta": 0.3}, 1),
    ("FlowMatchEulerDiscrete", {"shift": 3.0}, {}, 1),
    ("FlowMatchEulerDiscrete", {"stochastic_sampling": True}, {}, 1),
    ("FlowMatchHeunDiscrete", {}, {}, 2),
]


def make(name: str, config: Config) -> Any:
    return getattr(diffusers, f"{name}Scheduler")(**config)


@contextlib.contextmanager
def given_noise(scheduler: Any, noises: list[np.ndarray]) -> Any:
    """Let a diffusers scheduler draw these, one after another."""
    module, draws = importlib.import_module(type(scheduler).__module__), iter(noises)
    if not hasattr(module, "randn_tensor"):
        yield
        return
    draw = unittest.mock.Mock(side_effect=lambda *a, **k: torch.from_numpy(next(draws).copy()))
    with unittest.mock.patch.object(module, "randn_tensor", draw):
        yield


class Data:
    """Random initial state, network outputs and noises."""

    def __init__(self, calls: int, dtype: type = np.float64) -> None:
        rng = np.random.default_rng(calls)
        self.x, self.outputs, self.noises = (
            rng.standard_normal((*n, *SHAPE)).astype(dtype) for n in ((), (calls,), (2 * calls,))
        )

    def through(self, scheduler: Any, *, options: Config | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return what the network is shown and the last state, of a scheduler whose timesteps are set."""
        state, shown = torch.from_numpy(self.x), []
        scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
        for t, output in zip(scheduler.timesteps, self.outputs, strict=True):
            shown.append(scale(state, t).numpy().copy())
            result = scheduler.step(torch.from_numpy(output.copy()), t, state, **(options or {}))
            state = result[0] if isinstance(result, tuple) else getattr(result, "prev_sample", result)
        return state.numpy(), shown

    def through_plan(self, plan: StepPlan) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the same of a plan."""
        shown: list[np.ndarray] = []

        def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
            shown.append(x.copy())
            assert t[0] == pytest.approx(plan.timesteps[len(shown) - 1])
            return self.outputs[len(shown) - 1]

        draws = plan.meta.get("draws", list(range(plan.draws)))
        noise = self.noises[draws] if draws else None
        return run_plan(plan, model, self.x, noise=noise), shown


def drift(got: tuple[np.ndarray, list[np.ndarray]], want: tuple[np.ndarray, list[np.ndarray]]) -> float:
    pairs = zip([*got[1], got[0]], [*want[1], want[0]], strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


@pytest.mark.parametrize(("name", "config", "step", "slots"), CASES, ids=lambda value: str(value))
@pytest.mark.parametrize("steps", [7, 24])
def test_a_traced_plan_is_the_scheduler(name: str, config: Config, step: Config, slots: int, steps: int) -> None:
    original = make(name, config)
    plan = trace_scheduler(original, steps, step_options=step)
    data, scheduler = Data(plan.calls), widened_copy(original)
    with widened(scheduler), given_noise(scheduler, list(data.noises)):
        scheduler.set_timesteps(steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        want = data.through(scheduler, options=step)
    assert drift(data.through_plan(plan), want) <= 1e-9
    assert plan.slots <= slots
    assert plan.rows == plan.calls == len(scheduler.timesteps)
    assert plan.init_scale == pytest.approx(float(getattr(scheduler, "init_noise_sigma", 1.0)))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DDIM", NO_CLIP),
        ("DPMSolverMultistep", {"solver_order": 3}),
        ("UniPCMultistep", {"solver_order": 3}),
        ("EulerAncestralDiscrete", {}),
        ("PNDM", {}),
        ("LMSDiscrete", {}),
        ("SASolver", {}),
        ("FlowMatchHeunDiscrete", {}),
    ],
)
def test_traced_as_it_is_a_plan_agrees_with_the_scheduler_in_float32(name: str, config: Config) -> None:
    scheduler = make(name, config)
    narrow, wide = trace_scheduler(scheduler, 12, double=False), trace_scheduler(scheduler, 12)
    assert narrow.slots == wide.slots
    data = Data(narrow.calls, np.float32)
    scheduler.set_timesteps(12)
    with given_noise(scheduler, list(data.noises)):
        assert drift(data.through_plan(narrow), data.through(scheduler)) <= 2e-5


@pytest.mark.parametrize("steps", [1, 5, 30])
@pytest.mark.parametrize(
    "config",
    [
        {"_class_name": "DDIMScheduler", **NO_CLIP},
        {"_class_name": "DDIMScheduler", **NO_CLIP, "eta": 0.5, "prediction_type": "v_prediction"},
        {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3, "use_karras_sigmas": True},
        {"_class_name": "DPMSolverMultistepScheduler", **SDE, "solver_type": "heun"},
    ],
)
def test_weights_against_weights(config: Config, steps: int) -> None:
    options = {key: value for key, value in config.items() if key not in ("_class_name", "eta")}
    step = {"eta": config["eta"]} if "eta" in config else {}
    scheduler = getattr(diffusers, config["_class_name"])(**options)
    traced, compiled = trace_scheduler(scheduler, steps, step_options=step), plan_from_diffusers(config, steps)
    for got, want in zip(dense_weights(traced), dense_weights(compiled), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-11 * np.abs(want).max())
    np.testing.assert_array_equal(traced.timesteps, compiled.timesteps)
    np.testing.assert_allclose(traced.alpha, compiled.alpha, rtol=1e-12)
    np.testing.assert_allclose(traced.span, compiled.span, atol=1e-12)


def test_dense_weights_are_what_the_executor_applies() -> None:
    plan = compile_plan("sde-dpmsolver++", "linear", 6, order=2)
    data, rng = Data(6), np.random.default_rng(0)
    noise = rng.standard_normal((plan.draws, *SHAPE))
    answers = iter(data.outputs)
    got = run_plan(plan, lambda x, t: next(answers), data.x, noise=noise)
    weights = dense_weights(plan)
    assert len(weights) == 7
    np.testing.assert_allclose(np.tensordot(weights[-1], [data.x, *data.outputs, *noise], 1), got, rtol=1e-12)


def test_dense_weights_refuse_instructions() -> None:
    with pytest.raises(PlanError, match="a plan with instructions is not linear\n  got:      Clip"):
        dense_weights(compile_plan("ddim", "linear", 5, clip=1.0))


# Schedulers that diffusers does not have.


class Own:
    """The bare interface: timesteps as a list, a tuple from step, no config, no input scale."""

    def __init__(self) -> None:
        self.timesteps: list[int] = []
        self.rate = torch.tensor(0.3)

    def set_timesteps(self, num_inference_steps: int, stride: int = 10) -> None:
        self.timesteps = [stride * k for k in reversed(range(num_inference_steps))]

    def step(self, model_output: torch.Tensor, t: int, sample: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.update(model_output, t, sample),)

    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x - self.rate * output


class Momentum(Own):
    """Keeps a running mean of all outputs, and noise drawn by a function that was imported by its name."""

    mean: Any = 0.0

    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * output
        return 0.95 * x - self.rate * self.mean + 0.01 * (t > 0) * randn_like(x)


class TwoNoises(Own):
    """Draws twice in a step, and uses the second draw once more in the next step."""

    last: Any = 0.0

    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        first, second = torch.randn(x.shape), torch.empty_like(x).normal_()
        x = 0.9 * x + 0.2 * output + 0.5 * first + 0.25 * second - 0.125 * self.last
        self.last = second
        return x


def own_run(scheduler: Own, steps: int, data: Data) -> tuple[np.ndarray, list[np.ndarray]]:
    """Run it on recorded data; what draws noise is seen through `NormalDraws`, which its own test covers."""
    from dpmrt.export.trace_torch import NormalDraws

    draws = iter(data.noises)
    scheduler = widened_copy(scheduler)
    with NormalDraws(lambda shape: torch.from_numpy(next(draws).copy())), widened(scheduler):
        scheduler.set_timesteps(steps)
        return data.through(scheduler)


@pytest.mark.parametrize(("kind", "slots", "rows"), [(Own, 1, 30), (Momentum, 3, 59), (TwoNoises, 2, 60)])
def test_a_class_of_ones_own(kind: type[Own], slots: int, rows: int) -> None:
    plan, data = trace_scheduler(kind(), 30), Data(30)
    assert drift(data.through_plan(plan), own_run(kind(), 30, data)) <= 1e-12
    assert plan.timesteps.tolist() == list(range(290, -1, -10))
    assert (plan.slots <= slots, plan.rows) == (True, rows)
    assert plan.init_scale == 1.0


def test_set_timesteps_gets_its_options_and_may_bring_the_times() -> None:
    assert trace_scheduler(Own(), 3, stride=7).timesteps.tolist() == [14, 7, 0]
    flow = trace_scheduler(make("FlowMatchEulerDiscrete", {}), None, sigmas=[1.0, 0.5, 0.25])
    assert flow.timesteps.tolist() == [1000, 500, 250]
    assert flow.meta["steps"] == 3
    np.testing.assert_allclose(flow.sigma, [1, 0.5, 0.25])
    np.testing.assert_allclose(flow.alpha, [0, 0.5, 0.75])


def test_the_scheduler_and_torch_are_left_as_they_were() -> None:
    scheduler = make("DPMSolverMultistep", {})
    before = {name: repr(value) for name, value in vars(scheduler).items()}
    module = importlib.import_module(type(scheduler).__module__)
    trace_scheduler(scheduler, 5)
    with pytest.raises(TraceError):
        trace_scheduler(make("DDPM", {}), 5)
    assert {name: repr(value) for name, value in vars(scheduler).items()} == before
    assert torch.get_default_dtype() == torch.float32
    assert module.np is np
    assert torch.zeros(1).float().dtype == torch.float32


def test_levels_and_draws_are_written_down() -> None:
    euler = make("EulerDiscrete", {})
    plan = trace_scheduler(euler, 4)
    euler.set_timesteps(4)
    np.testing.assert_allclose(plan.sigma, euler.sigmas[:4], rtol=1e-6)
    assert plan.alpha.tolist() == [1.0] * 4
    assert plan.start == (1.0, pytest.approx(float(euler.sigmas[0])))
    ancestral = trace_scheduler(make("KDPM2AncestralDiscrete", {}), 4)
    assert ancestral.meta["scheduler"] == "KDPM2AncestralDiscreteScheduler"
    spans = ancestral.span[ancestral.noise != 0]
    assert (np.diff(spans.reshape(-1)) <= 0).all()
    assert (np.diff(spans) < -1e-6).all(), "no noise acts over nothing"
    assert trace_scheduler(make("SASolver", {}), 10).meta["draws"] == list(range(2, 9))


def test_brownian_noise_keeps_the_interval_that_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    name = "diffusers.schedulers.scheduling_dpmsolver_sde"
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)
    plan = trace_scheduler(module.DPMSolverSDEScheduler(), 6)
    assert (plan.calls, plan.draws) == (11, 10)
    assert plan.slots <= 2
    stages = plan.span[plan.noise != 0].reshape(-1, 2, 2)
    np.testing.assert_allclose(stages[:, 0, 0], stages[:, 1, 0], err_msg="both stages begin at the step's start")
    assert (stages[:, 0, 1] > stages[:, 1, 1]).all()


# What is refused.


class Squashes(Own):
    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x - 0.1 * (torch.tanh(output) if t == 20 else output)


class Mixes(Own):
    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x - 0.1 * output.mean()


class Uniform(Own):
    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Unseen(Own):
    rng = np.random.default_rng()

    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_numpy(self.rng.standard_normal(x.shape))


class Constant(Own):
    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x - 0.1 * output + 1e-3


class Hesitates(Own):
    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) if x.shape[0] > 1 else x


class Blurs(Own):
    def scale_model_input(self, sample: torch.Tensor, t: int) -> torch.Tensor:
        return sample + 0.1 * sample.roll(1, -1)


class Divides(Own):
    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x / t


class Shrinks(Own):
    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1, :1]


class Broadcasts(Own):
    def update(self, output: torch.Tensor, t: int, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn(1, 1)


@pytest.mark.parametrize(
    ("scheduler", "text"),
    [
        (Squashes(), r"Squashes is not linear\n  got: .* predicts, after step 3 of 5, t = 20\n"),
        (Mixes(), r"Mixes is not linear\n(.|\n)*step 1 of 5(.|\n)*mixes elements"),
        (Unseen(), r"Unseen is not linear\n(.|\n)*noise must come from torch.randn"),
        (Constant(), r"Constant is not linear\n(.|\n)*step 1 of 5"),
        (Uniform(), r"no place for\n  got:      rand_like, in step 1 of 5"),
        (Hesitates(), r"Hesitates is not linear|draws noise or not depending on the data"),
        (Blurs(), r"scale_model_input does more than multiply by a number\n  got:      step 1 of 5"),
        (Divides(), r"Divides computes NaN or infinity\n  got:      step 5 of 5, t = 0"),
        (Shrinks(), r"step changed the sample's shape\n  got:      \(2, 1, 1, 5\), in step 1 of 5"),
        (Broadcasts(), r"noise of another shape than the sample's\n  got:      \(1, 1\), in step 1 of 5"),
        (object(), r"object has not the interface of a scheduler\n  got:      no set_timesteps and no step"),
        (make("DDPM", {}), r"DDPMScheduler is not linear\n(.|\n)*fix:      trace it with clip_sample=False"),
        (make("DDIM", {**NO_CLIP, "thresholding": True}), r"fix:      trace it with thresholding=False"),
        (make("UniPCMultistep", {"thresholding": True}), r"fix:      trace it with thresholding=False"),
        (make("DDPM", {**NO_CLIP, "variance_type": "learned_range"}), r"variance_type of another kind"),
        (make("DPMSolverMultistep", {"variance_type": "learned"}), r"variance_type of another kind"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_plan_can_hold_is_refused(scheduler: Any, text: str) -> None:
    with pytest.raises(TraceError, match=text):
        trace_scheduler(scheduler, 5)


def test_options_that_the_scheduler_does_not_have_are_refused() -> None:
    scheduler = make("DDIM", NO_CLIP)
    with pytest.raises(TraceError, match=r"could not be set up\n  got:      TypeError: .*unexpected .*'pace'"):
        trace_scheduler(scheduler, 5, pace=3)
    with pytest.raises(TraceError, match=r"failed in a step\n  got:      TypeError: .*'eat'.*, in step 1 of 5"):
        trace_scheduler(scheduler, 5, step_options={"eat": 1.0})
    with pytest.raises(OptionError, match="steps is out of range"):
        trace_scheduler(scheduler, 0)


def test_step_options_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(TraceError, match=r"step_options is no mapping\n.*5\n.*keyword arguments"):
        trace_scheduler(object(), 4, step_options=5)  # type: ignore[arg-type]
