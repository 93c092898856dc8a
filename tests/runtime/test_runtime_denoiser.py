from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import NULL, SCHEDULER, Make, reference

from dpmrt.errors import BundleError, OptionError
from dpmrt.runtime import load, open_bundle
from dpmrt.runtime.backends import Backend, open_backend
from dpmrt.runtime.denoiser import Denoiser
from dpmrt.solvers_np import TorchCPUNoise, plan_from_diffusers, randn, run_plan


def make(root: Path, batch: int, engine: str = "auto", **arguments: Any) -> Denoiser:
    network = open_bundle(root).manifest.unet
    options: dict[str, Any] = {"function": reference} if engine == "numpy" else {}
    return Denoiser(open_backend(engine, root, network, **options), network, batch, **arguments)


def states(batch: int = 3) -> tuple[np.ndarray, list[np.ndarray]]:
    x = np.random.default_rng(1).standard_normal((batch, 1, 8, 8), dtype=np.float32)
    return x, [np.full_like(x, np.nan) for _ in range(2)]


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
def test_each_slot_gets_its_own_output(plain: Path, engine: str) -> None:
    x, slots = states()
    call = make(plain, 3, engine).bind(x, slots)
    call(512.25, 1)
    assert np.isnan(slots[0]).all()
    np.testing.assert_allclose(slots[1], reference(x, 512.25), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["onnxruntime", "numpy"])
@pytest.mark.parametrize("scale", [1.5, 7.5, -1.0, 0.25])
def test_guidance_is_uncond_plus_scale_times_the_difference(labelled: Path, engine: str, scale: float) -> None:
    x, slots = states()
    labels, null = np.array([2, 0, 1]), np.full(3, NULL)
    denoiser = make(labelled, 3, engine, guided=True, conditions={"class_labels": ()})
    call = denoiser.bind(x, slots)
    denoiser.condition({"class_labels": labels}, {"class_labels": null}, scale)
    call(33.0, 0)
    cond, uncond = reference(x, 33.0, labels), reference(x, 33.0, null)
    np.testing.assert_allclose(slots[0], uncond + scale * (cond - uncond), rtol=1e-5, atol=1e-5)
    assert np.isnan(slots[1]).all()


def test_conditions_can_change_between_runs_of_one_binding(labelled: Path) -> None:
    x, slots = states()
    denoiser = make(labelled, 3, conditions={"class_labels": ()})
    call = denoiser.bind(x, slots)
    for label in (0, 2):
        denoiser.condition({"class_labels": np.full(3, label)})
        call(5.0, 0)
        np.testing.assert_allclose(slots[0], reference(x, 5.0, np.full(3, label)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "variant",
    [{"time": "int64", "scalar": True}, {"time": "int64"}, {"time": "int32"}, {"scalar": True}, {"batch": 3}],
)
def test_every_form_of_timestep_gives_the_same_numbers(make_bundle: Make, variant: dict[str, Any]) -> None:
    x, slots = states()
    make(make_bundle(**variant), 3).bind(x, slots)(250.0, 0)
    np.testing.assert_allclose(slots[0], reference(x, 250.0), rtol=1e-5, atol=1e-6)


def test_a_half_precision_graph_is_fed_through_buffers_of_its_type(make_bundle: Make) -> None:
    x, slots = states()
    make(make_bundle(half=True), 3).bind(x, slots)(250.0, 0)
    np.testing.assert_allclose(slots[0], reference(x, 250.0), atol=5e-3)


def test_a_learned_variance_is_left_out(make_bundle: Make) -> None:
    x, slots = states()
    make(make_bundle(doubled_out=True), 3).bind(x, slots)(250.0, 1)
    np.testing.assert_allclose(slots[1], reference(x, 250.0), rtol=1e-5, atol=1e-6)


def test_a_learned_variance_reaches_a_plan_that_reads_it(make_bundle: Make) -> None:
    root = make_bundle(doubled_out=True, labels=True)
    with load(root) as pipeline:
        options = {"variance_type": "learned_range", "clip_sample": False, "_class_name": "DDPMScheduler"}
        options |= {key: value for key, value in SCHEDULER.items() if key not in (*options, "set_alpha_to_one")}
        plan = plan_from_diffusers(options, 6)
        assert plan.parts == 2
        for label, guidance in ((None, None), (1, 2.5)):
            ours = pipeline.sample(2, plan=plan, seed=3, label=label, guidance=guidance)
            theirs = run_plan(
                plan, by_hand(label, guidance), randn((2, 1, 8, 8), 3), noise=second_draws(3, plan.draws)
            )
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def by_hand(label: int | None, guidance: float | None) -> Any:
    """Return the doubled network, whose variance is not guided."""

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        null = reference(x, t[0], np.full(len(x), NULL))
        if label is None or guidance is None:
            return np.concatenate([null, null], axis=1)
        given = reference(x, t[0], np.full(len(x), label))
        return np.concatenate([null + np.float32(guidance) * (given - null), given], axis=1)

    return model


def second_draws(seed: int, count: int) -> np.ndarray:
    stream = TorchCPUNoise(seed)
    return np.stack([stream.normal((2, 1, 8, 8)) for _ in range(1 + count)])[1:]


def test_a_plan_that_reads_a_variance_needs_a_network_that_learned_one(plain: Path) -> None:
    plan = plan_from_diffusers({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, 6)
    with (
        load(plain) as pipeline,
        pytest.raises(OptionError, match="reads a variance that the network did not learn") as caught,
    ):
        pipeline.sample(plan=plan)
    assert (caught.value.got, caught.value.expected) == ("1 output channels", 2)


def test_unguided_the_backend_gets_the_executors_own_buffers(plain: Path) -> None:
    seen: list[tuple[int, int]] = []
    network = open_bundle(plain).manifest.unet
    inner = open_backend("auto", plain, network)

    class Spy:
        inputs, outputs = inner.inputs, inner.outputs

        def bind(self, inputs: Any, outputs: Any) -> Any:
            seen.append((inputs["sample"].ctypes.data, outputs["out_sample"].ctypes.data))
            return inner.bind(inputs, outputs)

        def close(self) -> None:
            inner.close()

    spy: Backend = Spy()
    x, slots = states()
    Denoiser(spy, network, 3).bind(x, slots)
    assert seen == [(x.ctypes.data, slot.ctypes.data) for slot in slots]


def test_whole_timesteps_refuse_a_plan_with_fractions_before_the_first_call(make_bundle: Make) -> None:
    root = make_bundle(time="int64", scalar=True)

    def never(**_: np.ndarray) -> np.ndarray:
        raise AssertionError("the network was called")

    with load(root, engine="numpy", function=never) as pipeline:
        plan = pipeline.plan(6, "dpmsolver++", grid="logsnr")
        with pytest.raises(OptionError, match="takes whole timesteps") as caught:
            pipeline.sample(plan=plan)
    assert "int64" in str(caught.value.expected)


def test_a_fixed_batch_is_explained(make_bundle: Make) -> None:
    root = make_bundle(batch=4, labels=True)
    with load(root) as pipeline:
        assert pipeline.sample(4).shape[0] == 4
        assert pipeline.sample(2, label=1).shape[0] == 2
        with pytest.raises(OptionError, match="exported for one batch size") as caught:
            pipeline.sample(4, label=1)
        assert caught.value.got == "batch 4, doubled for guidance"


def test_an_output_of_another_size_is_refused(make_bundle: Make) -> None:
    root = make_bundle(size="side", config={"sample_size": 8})
    network = open_bundle(root).manifest.unet
    x = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(BundleError, match="output is no sample"):
        Denoiser(open_backend("auto", root, network), network, 1).bind(x, [x.copy()])
