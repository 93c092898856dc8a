from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import NULL, Make, reference

from dpmrt.engines import Defaults
from dpmrt.errors import (
    ArrayError,
    BackendError,
    BundleError,
    DpmrtError,
    NonFiniteError,
    OptionError,
    SamplingCancelled,
)
from dpmrt.runtime import Pipeline, load
from dpmrt.runtime.request import check_schedule
from dpmrt.solvers_np import (
    BrownianPath,
    NumpyNoise,
    TorchCPUNoise,
    compile_plan,
    make_schedule,
    plan_from_diffusers,
    randn,
    run_plan,
    schedule_from_diffusers,
)
from dpmrt.solvers_np.grids.named import GRIDS


@pytest.fixture(scope="module")
def unlabelled(plain: Path) -> Iterator[Pipeline]:
    with load(plain) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def guided(labelled: Path) -> Iterator[Pipeline]:
    with load(labelled) as pipeline:
        yield pipeline


def test_a_sample_is_the_bundles_plan_run_on_torchs_noise(unlabelled: Pipeline) -> None:
    plan = plan_from_diffusers(unlabelled.bundle.scheduler_config, 5)
    expected = run_plan(plan, reference, randn((2, 1, 8, 8), seed=4))
    got = unlabelled.sample(2, seed=4)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_fresh_noise_follows_the_initial_noise_in_one_stream(unlabelled: Pipeline) -> None:
    plan = unlabelled.plan(6, eta=1.0)
    stream = TorchCPUNoise(9)
    expected = run_plan(plan, reference, stream.normal((3, 1, 8, 8)), noise=stream)
    np.testing.assert_allclose(unlabelled.sample(3, seed=9, steps=6, eta=1.0), expected, rtol=1e-4, atol=1e-4)
    other = unlabelled.sample(3, seed=9, plan=plan, noise=NumpyNoise(1))
    assert not np.allclose(other, expected)


def test_a_named_solver_runs_on_the_bundles_schedule(unlabelled: Pipeline) -> None:
    plan = unlabelled.plan(7, "dpmsolver++", grid="logsnr", order=2)
    assert plan.meta["solver"] == "dpmsolver++"
    by_name = unlabelled.sample(seed=1, steps=7, solver="dpmsolver++", grid="logsnr", order=2)
    np.testing.assert_array_equal(by_name, unlabelled.sample(seed=1, plan=plan))


def test_the_manifests_defaults_hold_unless_the_caller_chooses(make_bundle: Make) -> None:
    root = make_bundle(defaults=Defaults(steps=7, solver="dpmsolver++", options={"order": 2}))
    with load(root) as pipeline:
        assert pipeline.plan().digest() == pipeline.plan(7, "dpmsolver++", order=2).digest()
        assert pipeline.plan(order=1).digest() == pipeline.plan(7, "dpmsolver++", order=1).digest()
        assert pipeline.plan(solver="ddim").calls == 7


def test_the_same_seed_gives_the_same_sample_and_another_seed_another(unlabelled: Pipeline) -> None:
    first = unlabelled.sample(2, seed=0)
    np.testing.assert_array_equal(first, unlabelled.sample(2, seed=0))
    assert not np.array_equal(first, unlabelled.sample(2, seed=1))


def test_results_belong_to_the_caller(unlabelled: Pipeline) -> None:
    first = unlabelled.sample(2, seed=0)
    kept = first.copy()
    second = unlabelled.sample(2, seed=1)
    np.testing.assert_array_equal(first, kept)
    second[:] = np.nan
    np.testing.assert_array_equal(unlabelled.sample(2, seed=0), kept)
    assert first.flags.writeable
    assert first.base is None


def test_x_T_is_taken_and_left_alone(unlabelled: Pipeline) -> None:
    x = randn((2, 1, 8, 8), seed=5)
    kept = x.copy()
    np.testing.assert_array_equal(unlabelled.sample(2, x_T=x), unlabelled.sample(2, seed=5))
    np.testing.assert_array_equal(unlabelled.sample(2, x_T=x.astype(np.float64)), unlabelled.sample(2, seed=5))
    np.testing.assert_array_equal(x, kept)


def by_hand(pipeline: Pipeline, labels: list[int], scale: float, seed: int) -> np.ndarray:
    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        null = reference(x, t, np.full(len(x), NULL))
        return null + scale * (reference(x, t, np.array(labels)) - null)

    return run_plan(pipeline.plan(), model, randn((len(labels), 1, 8, 8), seed=seed))


@pytest.mark.parametrize("scale", [3.5, 1.0, 0.0, -0.5])
def test_guidance_matches_the_formula_at_every_scale(guided: Pipeline, scale: float) -> None:
    labels = [0, 2, 1]
    got = guided.sample(3, label=labels, guidance=scale, seed=2)
    np.testing.assert_allclose(got, by_hand(guided, labels, scale, 2), rtol=1e-3, atol=1e-3)


def test_labels_take_the_manifests_scale_and_none_is_the_null_class(guided: Pipeline) -> None:
    one = guided.sample(2, label=1, seed=2)
    np.testing.assert_array_equal(one, guided.sample(2, label=np.array([1, 1]), guidance=2.0, seed=2))
    np.testing.assert_array_equal(guided.sample(2, seed=2), guided.sample(2, label=NULL, guidance=1.0, seed=2))


def test_scales_of_one_and_zero_need_no_doubled_batch(labelled: Path) -> None:
    sizes: set[int] = set()

    def count(sample: np.ndarray, timestep: np.ndarray, class_labels: np.ndarray) -> np.ndarray:
        sizes.add(len(sample))
        return reference(sample, timestep, class_labels)

    with load(labelled, "numpy", function=count) as pipeline:
        for scale in (0.0, 1.0):
            pipeline.sample(3, label=1, guidance=scale)
        assert sizes == {3}
        pipeline.sample(3, label=1)
        assert sizes == {3, 6}


def test_equal_requests_share_one_binding_and_few_are_kept(plain: Path) -> None:
    bindings = []

    def never_again(**_: Any) -> None: ...

    with load(plain, "numpy", function=reference) as pipeline:
        backend = pipeline._held.backend()
        bind = backend.bind
        backend.bind = lambda *a: (bindings.append(never_again), bind(*a))[1]  # type: ignore[method-assign]
        for seed in range(5):
            pipeline.sample(2, seed=seed)
        assert len(bindings) == 1
        for batch in range(3, 12):
            pipeline.sample(batch)
        assert len(pipeline._held.bound) == 4


WRONG: dict[str, tuple[dict[str, Any], type[DpmrtError], str, str]] = {
    "no samples": ({"batch": 0}, OptionError, "batch is out of range", "0"),
    "half a sample": ({"batch": 1.5}, OptionError, "batch is out of range", "1.5"),
    "a true batch": ({"batch": True}, OptionError, "batch is out of range", "True"),
    "no steps": ({"steps": 0}, OptionError, "steps is out of range", "0"),
    "too many steps": ({"steps": 5000}, OptionError, "steps", "5000"),
    "unknown driver": ({"solver": "dpm-solver-32"}, OptionError, "(?s)unknown solver.*dpm-solver-23", "32"),
    "unknown solver": ({"solver": "dpmsolver+++"}, OptionError, "unknown solver", "'dpmsolver\\+\\+\\+'"),
    "unknown option": ({"solver": "ddim", "ordr": 2}, OptionError, "option of this name", "'ordr'"),
    "unknown key": ({"ordr": 2}, OptionError, "no key of this name", "ordr = 2"),
    "seed below zero": ({"seed": -1}, OptionError, "seed must be a whole number", "-1"),
    "seed of a kind": ({"seed": None}, OptionError, "seed must be a whole number", "None"),
    "a label": ({"label": 1}, OptionError, "the network takes no class labels", "label=1"),
    "guidance": ({"guidance": 2.0}, OptionError, "not trained for guidance", "guidance=2.0"),
    "guidance of one": ({"guidance": 1.0}, OptionError, "not trained for guidance", "guidance=1.0"),
    "text": ({"encoder_hidden_states": np.zeros((1, 2, 3))}, OptionError, "takes no text", "None"),
    "x_T of a batch": (
        {"x_T": np.zeros((3, 1, 8, 8), "f4")},
        ArrayError,
        r"noise \(x_T, --noise\) has the wrong shape",
        "3, 1, 8, 8",
    ),
    "x_T of a shape": ({"x_T": np.zeros((1, 8, 8), "f4")}, ArrayError, r"--noise\) has the wrong shape", "1, 8, 8"),
    "x_T whole": ({"x_T": np.zeros((1, 1, 8, 8), int)}, ArrayError, r"--noise\) has the wrong dtype", "int64"),
    "x_T NaN": ({"x_T": np.full((1, 1, 8, 8), np.nan)}, ArrayError, "holds NaN or infinity", "nan at \\(0, 0"),
    "x_T inf": ({"x_T": np.full((1, 1, 8, 8), np.inf, "f4")}, ArrayError, "holds NaN or infinity", "inf at"),
    "x_T ragged": ({"x_T": [[1.0], [2.0, 3.0]]}, ArrayError, r"--noise\) is no array", "inhomogeneous"),
    "a batch of no size": ({"batch": 10**30}, OptionError, "batch is out of range", "1000"),
    "a batch beyond memory": ({"batch": 2**40 // (4 * 64) + 1}, OptionError, "batch is out of range", "4294967297"),
    "no plan": ({"plan": 5}, OptionError, "plan is no plan", "5"),
    "prediction of a config": ({"prediction_type": "v_prediction"}, OptionError, "predicts something", "v_pred"),
    "prediction of a solver": ({"solver": "ddim", "prediction": "sample"}, OptionError, "predicts some", "sample"),
    "another schedule": ({"plan": compile_plan("ddim", "cosine", 10)}, OptionError, "another noise sch", "row 0, t"),
    "longer schedule": (
        {"plan": compile_plan("ddim", make_schedule("linear", train_steps=2000), 10)},
        OptionError,
        "another noise schedule",
        "row 0, t = 1999",
    ),
    "schedule of an option": ({"beta_end": 0.05}, OptionError, "another noise schedule", "row 0"),
    "own schedule": ({"solver": "ddim", "schedule": "linear"}, OptionError, "no option of this name", "schedule"),
    "self": ({"self": 1}, OptionError, "no key of this name", "self = 1"),
    "self of a solver": ({"solver": "ddim", "self": 1}, OptionError, "an option of this name", "self"),
    "config as option": ({"scheduler_config": 1}, OptionError, "no key of this name", "scheduler_config = 1"),
    "callback": ({"callback": 5}, OptionError, "callback cannot be called", "5"),
    "noise for nothing": ({"noise": NumpyNoise(1)}, OptionError, "the plan adds no noise", "NumpyNoise"),
    "noise too short": ({"eta": 1.0, "noise": np.zeros((1, 1, 1, 8, 8))}, ArrayError, "recorded noise", "1, 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_fails_before_the_network_runs(plain: Path, case: str) -> None:
    def never(**_: np.ndarray) -> np.ndarray:
        raise AssertionError("the network was called")

    request, kind, what, got = WRONG[case]
    with load(plain, "numpy", function=never) as pipeline, pytest.raises(kind, match=what) as caught:
        pipeline.sample(**request)
    assert re.search(got, str(caught.value.got))


WRONG_LABELS: dict[str, tuple[dict[str, Any], str, str]] = {
    "too high": ({"label": 4}, "label is out of range", "a whole number from 0 to 2, or 3 for no class"),
    "negative": ({"label": -1}, "label is out of range", "a whole number from 0 to 2, or 3 for no class"),
    "a fraction": ({"label": 0.5}, "label is out of range", "a whole number from 0 to 2, or 3 for no class"),
    "one of many": ({"batch": 2, "label": [0, 7]}, "label is out of range", "a whole number"),
    "too few": ({"batch": 3, "label": [0, 1]}, "one label for each sample", "3, as batch=3"),
    "guidance alone": ({"guidance": 2.0}, "nothing to guide to without a label", "a label from 0 to 2"),
    "no labels": ({"batch": 2, "label": []}, "one label for each sample", "2, as batch=2"),
    "ragged": ({"batch": 2, "label": [[1], [1, 2]]}, "label is no array", "an array"),
    "guidance without end": ({"label": 1, "guidance": 10**400}, "guidance is not a scale", "a finite number"),
    "guidance NaN": ({"label": 1, "guidance": float("nan")}, "guidance is not a scale", "a finite number"),
    "guidance text": ({"label": 1, "guidance": "2"}, "guidance is not a scale", "a finite number"),
}


@pytest.mark.parametrize("case", WRONG_LABELS)
def test_wrong_labels_and_scales_are_explained(guided: Pipeline, case: str) -> None:
    request, what, expected = WRONG_LABELS[case]
    with pytest.raises((OptionError, ArrayError), match=what) as caught:
        guided.sample(**request)
    assert str(caught.value.expected).startswith(expected)
    assert "batch of 0" not in str(caught.value.fix)


def test_a_network_with_labels_and_no_null_class_needs_a_label(make_bundle: Make) -> None:
    with load(make_bundle(labels=True, guidance=False)) as pipeline:
        with pytest.raises(OptionError, match="needs a class label"):
            pipeline.sample()
        with pytest.raises(OptionError, match="not trained for guidance"):
            pipeline.sample(label=1, guidance=2.0)
        assert pipeline.sample(label=1).shape == (1, 1, 8, 8)


def test_a_plan_leaves_no_choice(unlabelled: Pipeline) -> None:
    plan = unlabelled.plan(3)
    with pytest.raises(OptionError, match="a plan leaves nothing to choose") as caught:
        unlabelled.sample(plan=plan, steps=3, order=2)
    assert caught.value.got == "plan and steps, order"
    foreign = compile_plan("ddim", "linear", 3, prediction="v_prediction")
    with pytest.raises(OptionError, match="predicts something else"):
        unlabelled.sample(plan=foreign)


@pytest.mark.parametrize("grid", sorted(set(GRIDS) - {"times", "sigmas"}))
@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpmsolver++"])
def test_no_grid_of_the_own_schedule_is_taken_for_a_foreign_one(solver: str, grid: str) -> None:
    for name in ("linear", "scaled_linear", "cosine"):
        schedule = make_schedule(name)
        for steps in (1, 5, 50):
            check_schedule(compile_plan(solver, schedule, steps, grid=grid), schedule, fix="")


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("karras", [False, True])
def test_the_rounded_times_of_diffusers_are_not_taken_for_foreign_ones(spacing: str, karras: bool) -> None:
    for betas in ("linear", "squaredcos_cap_v2"):
        config = {"beta_schedule": betas, "timestep_spacing": spacing, "steps_offset": 1}
        config |= {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": karras}
        for steps in (3, 20):
            check_schedule(plan_from_diffusers(config, steps), schedule_from_diffusers(config), fix="")


def test_a_config_that_encodes_is_followed(make_bundle: Make) -> None:
    keys = {"_class_name": "DDIMInverseScheduler", "timestep_spacing": "leading"}
    with load(make_bundle(manifest=False, scheduler=keys)) as pipeline:
        for steps in (1, 3, 20):
            assert np.isfinite(pipeline.sample(steps=steps)).all()
        with pytest.raises(OptionError, match="another noise schedule"):
            pipeline.sample(steps=20, beta_end=0.05)


def test_a_class_of_which_no_schedule_is_known_has_none(make_bundle: Make) -> None:
    bundle = make_bundle(manifest=False, scheduler={"_class_name": "CMStochasticIterativeScheduler"})
    unknown = r"unknown scheduler class\n.*CMStochastic"
    with load(bundle) as pipeline, pytest.raises(OptionError, match=unknown):
        pipeline.sample(steps=5, solver="ddim")


def test_the_refusal_of_a_foreign_schedule_says_what_fits(unlabelled: Pipeline) -> None:
    with pytest.raises(OptionError) as caught:
        unlabelled.sample(plan=compile_plan("ddim", "cosine", 10))
    assert re.fullmatch(r"row 0, t = 999: log\(alpha / sigma\) = -\S+", str(caught.value.got))
    assert re.fullmatch(r"-5\.\d+ to -\d\.\d+", str(caught.value.expected))
    assert "Pipeline.plan(...) / --save-plan for this bundle" in str(caught.value.fix)


def test_a_schedule_rescaled_to_zero_snr_follows_its_config(make_bundle: Make) -> None:
    keys = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    with load(make_bundle(manifest=False, scheduler=keys)) as pipeline:
        plan = pipeline.plan(4)
        assert plan.alpha[0] == 0
        np.testing.assert_array_equal(pipeline.sample(plan=plan), pipeline.sample(steps=4))


def test_a_recording_without_draws_is_no_noise(unlabelled: Pipeline) -> None:
    none = np.zeros((0, 1, 1, 8, 8), np.float32)
    np.testing.assert_array_equal(unlabelled.sample(noise=none), unlabelled.sample())


@pytest.mark.parametrize("bundle", [None, 5, "", b"digits"])
def test_what_names_no_bundle_is_refused(bundle: Any) -> None:
    with pytest.raises(BundleError, match="names no bundle"):
        load(bundle)


def test_what_is_no_engine_is_refused(plain: Path) -> None:
    with pytest.raises(OptionError, match="neither a name nor a backend"):
        load(plain, 5)  # type: ignore[arg-type]


def test_a_free_size_comes_from_the_config_or_from_x_T(make_bundle: Make) -> None:
    root = make_bundle(size="side", config={"sample_size": 6})
    with load(root) as pipeline:
        assert pipeline.sample(2).shape == (2, 1, 6, 6)
        assert pipeline.sample(1, x_T=randn((1, 1, 10, 10), 0)).shape == (1, 1, 10, 10)


def test_a_free_size_that_nothing_fixes_is_explained(make_bundle: Make) -> None:
    root = make_bundle(size="side", config={"sample_size": None})
    with load(root) as pipeline, pytest.raises(ArrayError, match="size of the samples is not known"):
        pipeline.sample()


def test_a_network_that_returns_nan_is_an_error(plain: Path) -> None:
    pipeline = load(plain, "numpy", function=lambda sample, timestep: sample * np.nan)
    with pipeline, pytest.raises(NonFiniteError, match="the network returned NaN"):
        pipeline.sample()


def test_a_callback_sees_every_call_and_may_cancel(unlabelled: Pipeline) -> None:
    seen: list[tuple[int, int, float]] = []
    unlabelled.sample(steps=4, callback=lambda event: seen.append((event.index, event.total, event.t)))
    assert [index for index, _, _ in seen] == [0, 1, 2, 3]
    assert {total for _, total, _ in seen} == {4}
    with pytest.raises(SamplingCancelled):
        unlabelled.sample(callback=lambda event: event.cancel())
    assert np.isfinite(unlabelled.sample()).all()


def test_sampling_from_within_a_callback_is_refused(unlabelled: Pipeline) -> None:
    with pytest.raises(OptionError, match="its own callback"):
        unlabelled.sample(callback=lambda event: unlabelled.sample())


def test_a_closed_pipeline_says_so(plain: Path) -> None:
    pipeline = load(plain)
    pipeline.close()
    pipeline.close()
    with pytest.raises(BackendError, match="the pipeline is closed"):
        pipeline.sample()


def test_threads_take_turns(guided: Pipeline) -> None:
    alone = {(seed, label): guided.sample(2, seed=seed, label=label) for seed in range(4) for label in (0, 2)}
    results: dict[tuple[int, int], np.ndarray] = {}

    def work(label: int) -> None:
        for seed in range(4):
            results[seed, label] = guided.sample(2, seed=seed, label=label)

    threads = [threading.Thread(target=work, args=(label,)) for label in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.keys() == alone.keys()
    for key, value in alone.items():
        np.testing.assert_array_equal(results[key], value)


def test_an_open_backend_takes_no_options(plain: Path, unlabelled: Pipeline) -> None:
    with pytest.raises(OptionError, match="takes no options"):
        load(plain, unlabelled._held.backend(), threads=2)


def test_a_list_of_seeds_makes_each_sample_independent_of_its_batch(unlabelled: Pipeline) -> None:
    options = {"solver": "ddpm", "steps": 4}
    both = unlabelled.sample(2, seed=[5, 9], **options)
    for k, seed in enumerate((5, 9)):
        np.testing.assert_allclose(
            both[k : k + 1], unlabelled.sample(1, seed=[seed], **options), rtol=1e-5, atol=1e-6
        )
    with pytest.raises(ArrayError, match="another number of seeds"):
        unlabelled.sample(3, seed=[1, 2])


def test_a_brownian_path_is_asked_for_its_intervals(unlabelled: Pipeline) -> None:
    few, many = (unlabelled.sample(1, solver="ddpm", steps=n, noise=BrownianPath(3)) for n in (200, 400))
    other = unlabelled.sample(1, solver="ddpm", steps=400, noise=BrownianPath(4))
    assert np.abs(few - many).max() < 0.5 * np.abs(other - many).max()


def test_a_solver_may_be_called_as_k_diffusion_does(unlabelled: Pipeline) -> None:
    named = unlabelled.sample(1, solver="DPM++ 2M Karras", steps=6)
    plain = unlabelled.sample(1, solver="dpmsolver++", grid="karras", order=2, lower_order_final=False, steps=6)
    np.testing.assert_array_equal(named, plain)
