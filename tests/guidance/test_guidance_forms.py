"""Classifier-free guidance in every form, through a bundle's engine, against loops in torch."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guided_torch import ALPHA_BAR, classifier_free, ddim
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundles import reference, write_bundle

from dpmrt.errors import NonFiniteError, OptionError
from dpmrt.runtime import Guidance, Pipeline, load
from dpmrt.runtime.backends import open_backend
from dpmrt.runtime.bundle import open_bundle
from dpmrt.runtime.denoiser import Denoiser
from dpmrt.solvers_np import randn

LABELS, STEPS = [0, 2, 1], 7
EACH = [3.0, 0.5, 1.0]
TABLE = np.linspace(-1, 6, STEPS)
WIDE = np.random.default_rng(0).uniform(-1, 5, (STEPS, 3))


def ratio(t: float) -> float:
    a = float(ALPHA_BAR[int(t)])
    return ((1 - a) / a) ** 0.5


def progress(call: int) -> float:
    return call / (STEPS - 1)


#: what is asked; the scale at a call and a time; how much is rescaled
FORMS: dict[str, tuple[Any, Any, float]] = {
    "a scale": (2.5, lambda k, t: 2.5, 0.0),
    "one a sample": (EACH, lambda k, t: EACH, 0.0),
    "an array": (np.array(EACH), lambda k, t: EACH, 0.0),
    "rescaled": (Guidance(4.0, rescale=0.7), lambda k, t: 4.0, 0.7),
    "rescaled wholly, one a sample": (Guidance(EACH, rescale=1.0), lambda k, t: EACH, 1.0),
    "the bundle's scale, rescaled": (Guidance(rescale=0.5), lambda k, t: 2.0, 0.5),
    "no condition, rescaled": (Guidance(0.0, rescale=0.8), lambda k, t: 0.0, 0.8),
    "interval of progress": (
        Guidance(3.0, interval=(1 / 6, 0.5)),
        lambda k, t: 3.0 if 1 / 6 <= progress(k) <= 0.5 else 1.0,
        0.0,
    ),
    "interval of time": (
        Guidance(EACH, interval=(142, 568), unit="time"),
        lambda k, t: EACH if 142 <= t <= 568 else 1.0,
        0.0,
    ),
    "interval of sigma": (
        Guidance(3.0, interval=(0.5, 3.0), unit="sigma"),
        lambda k, t: 3.0 if 0.5 <= ratio(t) <= 3 else 1.0,
        0.0,
    ),
    "linear": (Guidance(5.0, schedule="linear"), lambda k, t: 1 + 4 * progress(k), 0.0),
    "cosine, one a sample": (
        Guidance(EACH, schedule="cosine", rescale=0.3),
        lambda k, t: 1 + (np.array(EACH) - 1) * (1 - np.cos(np.pi * progress(k))) / 2,
        0.3,
    ),
    "a scale a call": (Guidance(schedule=TABLE.tolist()), lambda k, t: TABLE[k], 0.0),
    "a table": (Guidance(schedule=WIDE, interval=(0, 0.7)), lambda k, t: WIDE[k] if progress(k) <= 0.7 else 1, 0.0),
    "a function of progress": (Guidance(schedule=lambda p: 1 + p**2), lambda k, t: 1 + progress(k) ** 2, 0.0),
    "a function of time": (
        Guidance(schedule=lambda t: [t / 500, 1, 2], unit="time", rescale=0.2),
        lambda k, t: [t / 500, 1, 2],
        0.2,
    ),
    "a function of sigma": (Guidance(schedule=lambda s: min(s, 9), unit="sigma"), lambda k, t: min(ratio(t), 9), 0.0),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_what_the_papers_say(guided: Pipeline, form: str) -> None:
    asked, scale, rescale = FORMS[form]
    x = randn((3, 1, 8, 8), 2)
    got = guided.sample(3, x_T=x, label=LABELS, guidance=asked, steps=STEPS)
    expected = ddim(x, classifier_free(LABELS, scale, rescale), STEPS)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5 * abs(expected).max())


def test_scales_of_samples_are_those_of_runs_of_their_own(guided: Pipeline) -> None:
    x = randn((3, 1, 8, 8), 4)
    for rescale in (0.0, 0.6):
        together = guided.sample(3, x_T=x, label=LABELS, guidance=Guidance([4.0, 1.0, 0.0], rescale=rescale))
        for k, scale in enumerate((4.0, 1.0, 0.0)):
            alone = guided.sample(
                1, x_T=x[k : k + 1], label=LABELS[k], guidance=Guidance(scale, rescale=rescale), steps=5
            )
            np.testing.assert_allclose(together[k : k + 1], alone, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(scales=st.lists(st.sampled_from([0.0, 1.0]), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_one_is_unguided_and_nought_unconditional(guided: Pipeline, scales: list[float], seed: int) -> None:
    mixed = guided.sample(3, seed=seed, label=LABELS, guidance=scales, steps=3)
    plain = guided.sample(3, seed=seed, label=LABELS, guidance=1.0, steps=3)
    free = guided.sample(3, seed=seed, steps=3)
    for k, scale in enumerate(scales):
        np.testing.assert_allclose(mixed[k], (plain if scale else free)[k], rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(low=st.floats(0, 1), high=st.floats(0, 1), scale=st.floats(-3, 8))
def test_an_interval_is_a_table_of_its_calls(guided: Pipeline, low: float, high: float, scale: float) -> None:
    bounds = (min(low, high), max(low, high))
    inside = [bounds[0] <= k / 5 <= bounds[1] for k in range(6)]
    by_table = Guidance(schedule=[scale if yes else 1.0 for yes in inside])
    got = guided.sample(2, label=1, steps=6, guidance=Guidance(scale, interval=bounds))
    np.testing.assert_array_equal(got, guided.sample(2, label=1, steps=6, guidance=by_table))


def counted(root: Path, sizes: list[int]) -> Pipeline:
    def count(sample: np.ndarray, timestep: np.ndarray, class_labels: np.ndarray) -> np.ndarray:
        sizes.append(len(sample))
        return reference(sample, timestep, class_labels)

    return load(root, "numpy", function=count)


def test_outside_the_interval_the_conditioned_half_runs_alone(labelled: Path) -> None:
    sizes: list[int] = []
    with counted(labelled, sizes) as pipeline:
        pipeline.sample(3, label=1, steps=5, guidance=Guidance(3.0, interval=(0.25, 0.5)))
        assert sizes == [3, 6, 6, 3, 3]
        sizes.clear()
        # a scale of one sample is not one, so that both halves are needed
        pipeline.sample(3, label=1, steps=2, guidance=[1.0, 1.0, 2.0])
        assert sizes == [6, 6]
        sizes.clear()
        for nothing in (Guidance(1.0, interval=(0, 0.5), rescale=0.4), Guidance([1, 1, 1], schedule="linear")):
            pipeline.sample(3, label=1, steps=2, guidance=nothing)
        assert sizes == [3] * 4


def test_a_network_of_one_batch_size_is_run_doubled_everywhere(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "fixed", labels=True, batch=4)
    asked = Guidance(3.0, interval=(0.0, 0.5))
    with load(root) as pipeline:
        got = pipeline.sample(2, label=1, steps=4, guidance=asked)
        sizes: list[int] = []
        with counted(root, sizes) as other:
            np.testing.assert_allclose(got, other.sample(2, label=1, steps=4, guidance=asked), atol=1e-5)
        assert sizes == [4] * 4


def test_calls_are_counted_anew_after_a_run_that_failed(guided: Pipeline) -> None:
    asked = Guidance(schedule=[5.0, 1.0, 2.0, -1.0])
    expected = guided.sample(2, label=1, steps=4, guidance=asked)

    def stop(event: Any) -> None:
        if event.index == 1:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        guided.sample(2, label=1, steps=4, guidance=asked, callback=stop)
    np.testing.assert_array_equal(guided.sample(2, label=1, steps=4, guidance=asked), expected)


def test_every_call_of_a_step_has_its_scale(guided: Pipeline) -> None:
    """Heun calls twice a step: a schedule counts calls, not steps."""
    plan = guided.plan(4, "heun")
    assert plan.calls == 7
    told: list[float] = []

    def scale(place: float) -> float:
        told.append(place)
        return 2.0

    got = guided.sample(2, label=1, plan=plan, guidance=Guidance(schedule=scale))
    np.testing.assert_allclose(told, np.arange(7) / 6)
    np.testing.assert_array_equal(got, guided.sample(2, label=1, plan=plan, guidance=Guidance(schedule=[2.0] * 7)))


def test_a_variance_that_was_learned_stays_that_of_the_conditioned_half(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "b", labels=True, doubled_out=True)
    network = open_bundle(root).manifest.unet
    denoiser = Denoiser(open_backend("auto", root, network), network, 2, guided=True, conditions={"class_labels": ()})
    x = randn((2, 1, 8, 8), 1)
    out = np.zeros((2, 2, 8, 8), np.float32)
    call = denoiser.bind(x, [out])
    denoiser.condition({"class_labels": [0, 1]}, {"class_labels": [3, 3]}, np.array([[1.0, 1.0], [4.0, 2.0]]), 0.9)
    given, null = reference(x, 30.0, np.array([0, 1])), reference(x, 30.0, np.array([3, 3]))
    call(30.0, 0)
    np.testing.assert_allclose(out, np.concatenate([given, given], axis=1), atol=1e-5)
    call(30.0, 0)
    guided = null + np.array([4.0, 2.0]).reshape(2, 1, 1, 1) * (given - null)
    gain = 0.9 * given.std(axis=(1, 2, 3), ddof=1) / guided.std(axis=(1, 2, 3), ddof=1) + 0.1
    np.testing.assert_allclose(out[:, :1], guided * gain.reshape(2, 1, 1, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out[:, 1:], given, atol=1e-5)


def test_the_loop_allocates_nothing_of_the_size_of_a_sample(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "b", labels=True, size="side", config={"sample_size": 128})
    network = open_bundle(root).manifest.unet
    denoiser = Denoiser(open_backend("auto", root, network), network, 2, guided=True, conditions={"class_labels": ()})
    x = randn((2, 1, 128, 128), 1)
    out = np.zeros_like(x)
    call = denoiser.bind(x, [out])
    denoiser.condition({"class_labels": [0, 1]}, {"class_labels": [3, 3]}, np.array([[1.0], [3.0]]), 0.5)
    for _ in range(2):
        call(30.0, 0)
    tracemalloc.start()
    for _ in range(2):
        call(30.0, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x[0].nbytes / 4


def test_a_sample_without_deviation_is_left_by_rescaling(labelled: Path) -> None:
    with load(labelled, "numpy", function=lambda sample, **_: np.full_like(sample, 0.5)) as pipeline:
        got = pipeline.sample(2, label=1, guidance=Guidance(3.0, rescale=1.0))
        np.testing.assert_allclose(got, pipeline.sample(2, label=1, guidance=1.0), atol=1e-5)
    with (
        load(labelled, "numpy", function=lambda sample, **_: sample * np.nan) as pipeline,
        pytest.raises(NonFiniteError),
    ):
        pipeline.sample(2, label=1, guidance=Guidance(3.0, rescale=1.0))


def test_a_model_without_a_plan_goes_by_time_or_sigma(guided: Pipeline) -> None:
    x = randn((3, 1, 8, 8), 1)
    for asked, scale in (
        (Guidance(EACH, interval=(100, 500), unit="time", rescale=0.5), lambda t: EACH if 100 <= t <= 500 else 1.0),
        (Guidance(schedule=lambda s: 1 + s, unit="sigma"), lambda t: 1 + ratio(t)),
    ):
        model = guided.model(3, label=LABELS, guidance=asked)
        for t in (50.0, 300.0, 700.0, 300.0):
            table = Guidance(scale=scale(t), rescale=asked.rescale)
            expected = guided.model(3, label=LABELS, guidance=table)(x, t)
            np.testing.assert_allclose(model(x, t), expected, rtol=1e-5, atol=1e-5)
    constant = guided.model(3, label=LABELS, guidance=Guidance(EACH))(x, 50.0)
    np.testing.assert_array_equal(constant, guided.model(3, label=LABELS, guidance=EACH)(x, 50.0))


@pytest.mark.parametrize(
    "asked", [Guidance(3.0, interval=(0, 0.5)), Guidance(3.0, schedule="linear"), Guidance(schedule=[1.0, 2.0])]
)
def test_a_model_without_a_plan_refuses_what_counts_calls(guided: Pipeline, asked: Guidance) -> None:
    with pytest.raises(OptionError, match="goes by the progress of a plan, and this sampler follows none") as caught:
        guided.model(2, label=1, guidance=asked)
    assert "unit='time'" in str(caught.value.fix)


def test_all_of_it_runs_without_torch(labelled: Path) -> None:
    code = (
        "import sys\nfrom dpmrt.runtime import Guidance, load\n"
        "with load(sys.argv[1]) as pipeline:\n"
        "    asked = Guidance([2.0, 3.0], interval=(0.1, 0.9), schedule='cosine', rescale=0.7)\n"
        "    pipeline.sample(2, label=1, steps=5, guidance=asked)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, labelled], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "scipy", "diffusers", "PIL", "click"} & set(done.stdout.split())
