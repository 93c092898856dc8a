"""The ONNX Runtime adapter of the C++ runtime, and its sampler: Python's numbers, and Python's pictures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp_building import RELEASE, SANITIZED, THREADS, build, run
from cpp_onnxruntime import MISSING
from PIL import Image
from tiny_bundles import Make, write_bundle
from tiny_conditioned import write_conditioned

from dpmrt.engines import Axis, Precision, record_file, shipped_bundle
from dpmrt.errors import BundleError, OptionError
from dpmrt.runtime import load
from dpmrt.solvers_np import StepPlan, compile_plan

TEXT = {"encoder_hidden_states": ("float16", ("batch", "words", 3)), "time_ids": ("float32", ("batch", 6))}


def _with_adapter(place: Path, built: Path) -> Path:
    if (place / MISSING).exists():
        pytest.skip(f"ONNX Runtime's headers cannot be had: {(place / MISSING).read_text()}")
    return built


@pytest.fixture(scope="session")
def built(place: Path) -> Path:
    return _with_adapter(place, build(place / "cpp", RELEASE))


@pytest.fixture(scope="session")
def sanitized(place: Path) -> Path:
    return _with_adapter(place, build(place / "cpp-sanitized", *SANITIZED))


def sampled(
    program: Path,
    bundle: Path,
    plan: StepPlan,
    folder: Path,
    *,
    shape: str = "1,8,8",
    guidance: float = 1.0,
    conditioned: bool | Path = True,
) -> Any:
    """Return what C++ samples, or the error that it gives."""
    plan.save(folder / "plan.steps")
    kind = str(conditioned) if isinstance(conditioned, Path) else "conditioned" if conditioned else "bare"
    said = run(
        program / "dpmrt_onnxruntime_test",
        bundle,
        folder / "plan.steps",
        folder / "out.bin",
        shape,
        f"{guidance}",
        kind,
    )
    if said != "DPMRT_OK\n":
        return said
    return np.fromfile(folder / "out.bin", np.float32).reshape(2, *map(int, shape.split(",")))


def check_near(got: Any, expected: np.ndarray) -> None:
    """Hold the largest difference against the size of what was expected, as golden.cpp does for noise of a seed."""
    assert isinstance(got, np.ndarray), got
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * np.sqrt(np.square(expected, dtype=np.float64).mean())


def ramp(shape: tuple[int, ...], factor: float = 1.0) -> np.ndarray:
    """Return the condition that runtime/cpp/tests/onnxruntime.cpp gives."""
    count = int(np.prod(shape))
    return (factor * (0.25 * (np.arange(count) % 7) - 0.5)).reshape(shape).astype(np.float32)


VARIANTS: dict[str, tuple[dict[str, Any], float]] = {
    "plain": ({}, 1.0),
    "labels": ({"labels": True}, 1.0),
    "guided": ({"labels": True}, 3.0),
    "half": ({"labels": True, "half": True}, 2.0),
    "one whole time": ({"time": "int64", "scalar": True}, 1.0),
    "whole times": ({"time": "int32"}, 1.0),
    "other names": ({"names": {"sample": "x", "timestep": "t", "out_sample": "y"}}, 1.0),
    "a batch of four": ({"labels": True, "batch": 4}, 2.0),
    "variance left out": ({"labels": True, "doubled_out": True}, 2.0),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_networks_of_all_kinds_give_python_s_samples(built: Path, tmp_path: Path, name: str) -> None:
    variant, scale = VARIANTS[name]
    bundle = write_bundle(tmp_path / "bundle", **variant)
    request: dict[str, Any] = {"label": [0, 1], "guidance": scale} if variant.get("labels") else {}
    with load(bundle) as pipeline:
        plan = pipeline.plan(5)
        expected = pipeline.sample(2, seed=3, plan=plan, **request)
    got = sampled(built, bundle, plan, tmp_path, guidance=scale)
    check_near(got, expected)


def test_eight_threads_over_one_network_under_the_thread_sanitizer(place: Path, tmp_path: Path) -> None:
    threads = _with_adapter(place, build(place / "cpp-threads", *THREADS))
    bundle = write_bundle(tmp_path / "bundle", labels=True)
    with load(bundle) as pipeline:
        plan = pipeline.plan(5)
        expected = pipeline.sample(2, seed=3, plan=plan, label=[0, 1], guidance=2.0)
    check_near(sampled(threads, bundle, plan, tmp_path, guidance=2.0), expected)


def test_a_learned_variance_is_read(sanitized: Path, make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle(labels=True, doubled_out=True)
    with load(bundle) as pipeline:
        plan = pipeline.plan(4, "ddpm", variance="learned_range")
        assert plan.parts == 2
        expected = pipeline.sample(2, seed=3, plan=plan, label=[0, 1], guidance=2.0)
    got = sampled(sanitized, bundle, plan, tmp_path, guidance=2.0)
    check_near(got, expected)


@pytest.mark.parametrize("folded", [False, True])
def test_conditions_of_any_name(sanitized: Path, tmp_path: Path, folded: bool) -> None:
    bundle = write_conditioned(tmp_path / "bundle", conditions=TEXT, folded=folded)
    given = {"encoder_hidden_states": ramp((2, 5, 3)), "time_ids": ramp((2, 6))}
    negative = {role: 0.5 * array for role, array in given.items()}
    with load(bundle) as pipeline:
        plan = pipeline.plan(5)
        request: Mapping[str, Any] = {"conditions": given, "negative": negative, "guidance": 3.0, "shape": (4, 6, 8)}
        expected = pipeline.sample(2, seed=3, plan=plan, **request)
    got = sampled(sanitized, bundle, plan, tmp_path, shape="4,6,8", guidance=1.0 if folded else 3.0)
    check_near(got, expected)


@pytest.mark.parametrize(("sample", "axis"), [(("batch", 3, 8, 8), 1), (("batch", 5, 3, 8, 8), 2)])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_what_goes_behind_the_channels_of_the_state(
    sanitized: Path, tmp_path: Path, sample: tuple[Any, ...], axis: int, guidance: float
) -> None:
    text = {"encoder_hidden_states": ("float32", ("batch", 5, 3))}
    bundle = write_conditioned(tmp_path / "bundle", sample=sample, channels=1, axis=axis, conditions=text)
    state, extra = [2, *sample[1:]], [2, *sample[1:]]
    state[axis], extra[axis] = 1, 2
    given = {"encoder_hidden_states": ramp((2, 5, 3)), "extra_channels": ramp(tuple(extra))}
    request: dict[str, Any] = {"conditions": given}
    if guidance != 1:
        request |= {"guidance": guidance, "negative": {role: 0.5 * array for role, array in given.items()}}
    with load(bundle) as pipeline:
        plan = pipeline.plan(5)
        expected = pipeline.sample(2, seed=3, plan=plan, **request)
        bare = {**given, "extra_channels": 0 * given["extra_channels"]}
        assert np.abs(pipeline.sample(2, seed=3, plan=plan, conditions=bare) - expected).max() > 0.01
    shape = ",".join(str(side) for side in state[1:])
    check_near(sampled(sanitized, bundle, plan, tmp_path, shape=shape, guidance=guidance), expected)


def test_a_graph_of_bf16_runs_by_its_emulated_twin(built: Path, tmp_path: Path) -> None:
    precision = Precision("bf16", emulated="unet/emulated.onnx")
    bundle = write_conditioned(tmp_path / "bundle", sample=("batch", 1, 8, 8), precision=precision)
    graph = bundle / "unet/model.onnx"
    (bundle / "unet/emulated.onnx").write_bytes(graph.read_bytes())
    # an operator that ONNX Runtime does not know
    graph.write_bytes(graph.read_bytes().replace(b"Reshape", b"Reshapf"))
    manifest = json.loads((bundle / "dpmrt.json").read_text())
    for name in ("unet/model.onnx", "unet/emulated.onnx"):
        record = record_file(bundle / name)
        manifest["files"][name] = {"bytes": record.bytes, "sha256": record.sha256}
    (bundle / "dpmrt.json").write_text(json.dumps(manifest))
    with load(bundle) as pipeline:
        plan = pipeline.plan(4)
        expected = pipeline.sample(2, seed=3, plan=plan)
    check_near(sampled(built, bundle, plan, tmp_path), expected)


def _plan(bundle: Path, *arguments: Any, **options: Any) -> StepPlan:
    with load(bundle) as pipeline:
        return pipeline.plan(*arguments, **options)


def test_sessions_that_do_not_fit_are_refused_in_python_s_words(sanitized: Path, tmp_path: Path) -> None:
    plain = write_bundle(tmp_path / "plain")
    plan = _plan(plain, 5)
    refuse = lambda name, bundle, made=plan, **asked: sampled(sanitized, bundle, made, tmp_path, **asked)  # noqa: E731
    assert "the sample does not fit the network\n  got:      (1, 4, 8)\n  expected: (1, 8, 8)" in refuse(
        "shape", plain, shape="1,4,8"
    )
    assert "the sample does not fit the network" in refuse("rank", plain, shape="8")
    single = write_bundle(tmp_path / "single", batch=1)
    assert "the network was exported for one batch size\n  got:      batch 2\n  expected: 1 in all" in refuse(
        "one", single
    )
    limited = write_conditioned(
        tmp_path / "limited",
        axes={"batch": Axis(opt=1, max=3), "width": Axis(opt=8, multiple=8)},
        sample=("batch", 1, 8, "width"),
    )
    said = refuse("limits", limited, guidance=2.0)
    assert (
        "does not take a batch of this size\n  got:      batch 2, doubled for guidance\n  expected: batch = 1 to 3"
        in said
    )
    assert "expected: width = 1 or more, in multiples of 8" in refuse("width", limited, shape="1,8,9")
    whole = write_bundle(tmp_path / "whole", time="int64")
    fractions = _plan(plain, 6, "dpmsolver++", grid="logsnr")
    assert "the network takes whole timesteps, and the plan has others" in refuse("times", whole, fractions)
    learned = _plan(write_bundle(tmp_path / "learned", doubled_out=True), 4, "ddpm", variance="learned_range")
    assert "the plan reads a variance that the network did not learn" in refuse("variance", plain, learned)
    labelled = write_bundle(tmp_path / "labelled", labels=True)
    assert "the session has none\n  got:      conditions = NULL\n  expected: class_labels" in refuse(
        "none", labelled, conditioned=False
    )
    masked = write_conditioned(tmp_path / "masked", sample=("batch", 3, "height", 8), channels=1)
    assert "the session has none\n  got:      conditions = NULL\n  expected: extra_channels" in refuse(
        "none", masked, conditioned=False
    )
    assert "the conditions are another network's\n  got:      no extra_channels" in refuse(
        "foreign", masked, conditioned=plain
    )
    # the test's program gives a free side the length 5
    said = refuse("extra", masked)
    assert "the condition extra_channels does not fit the sample\n  got:      (2, 2, 5, 8)" in said
    assert "expected: (2, 2, 8, 8)" in said


def test_a_plan_for_another_prediction_is_refused(built: Path, tmp_path: Path) -> None:
    plan = compile_plan("ddim", "linear", 4, prediction="v_prediction")
    plan.save(tmp_path / "plan.steps")
    command = [built / "dpmrt_sample", shipped_bundle("digits"), "--plan", "plan.steps", "-o", "o.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    with load("digits") as pipeline, pytest.raises(OptionError) as caught:
        pipeline.sample(plan=plan)
    assert (done.returncode, done.stderr) == (1, f"error: {caught.value}\n")


def test_a_manifest_that_is_not_the_graph_s_is_refused(sanitized: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", labels=True)
    plan = _plan(bundle, 5)
    whole = json.loads((bundle / "dpmrt.json").read_text())

    def refused(change: Callable[[dict[str, Any]], object]) -> str:
        changed = json.loads(json.dumps(whole))
        change(changed["unet"])
        (bundle / "dpmrt.json").write_text(json.dumps(changed))
        with pytest.raises(BundleError) as caught:
            load(bundle)
        said = sampled(sanitized, bundle, plan, tmp_path)
        assert said == f"DPMRT_ERROR_FORMAT\n{caught.value}"
        return str(said)

    assert "disagree about the input `timestep`" in refused(lambda unet: unet["inputs"][1].update(dtype="int64"))
    assert "lacks the input `sample`" in refused(lambda unet: unet["inputs"][0].update(name="latent"))
    assert "the graph has no output `eps`" in refused(lambda unet: unet["outputs"][0].update(name="eps"))


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


PICTURES: dict[str, list[str]] = {
    "unconditional": ["-n", "3", "--grid", "3", "--scale", "2", "--seed", "7"],
    "classes": ["--label", "all", "--guidance", "2", "--seed", "1"],
    "scales": ["--label", "5", "--guidance", "1,2,4", "--guidance-interval", "0.2,0.8", "--guidance-rescale", "0.5"],
    "usual scale": ["--label", "3,8", "-n", "5", "--guidance-schedule", "cosine"],
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_sampler_makes_python_s_picture(built: Path, tmp_path: Path, name: str) -> None:
    from click.testing import CliRunner

    from dpmrt.runtime.cli import main

    arguments, plan = PICTURES[name], tmp_path / "digits.steps"
    made = ["sample", "digits", "--steps", "6", "-o", str(tmp_path / "py.png"), "--save-plan", str(plan), "-q"]
    done = CliRunner().invoke(main, [*made, *arguments])
    assert done.exit_code == 0, done.output
    printed = run(
        built / "dpmrt_sample", shipped_bundle("digits"), "--plan", plan, "-o", tmp_path / "cpp.png", *arguments
    )
    assert "6 network calls" in printed
    ours, theirs = _picture(tmp_path / "cpp.png").astype(int), _picture(tmp_path / "py.png").astype(int)
    assert ours.shape == theirs.shape
    # a value may lie on the edge between two levels
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "usage: dpmrt_sample BUNDLE"),
        ([], 2, "the bundle is missing"),
        (["x"], 2, "--plan is missing"),
        (["x", "--plan", "p", "-o", "x.jpg"], 2, "has to be a .png"),
        (["x", "y"], 2, "one bundle too many: y"),
        (["x", "--colour"], 2, "there is no option --colour"),
        (["x", "--seed", "-1"], 2, "--seed is no whole number from 0"),
        (["x", "--guidance", "1,a"], 2, "--guidance is no number: a"),
        (["x", "--guidance-unit", "weeks"], 2, "one of progress, time, sigma: weeks"),
        (["x", "--grid"], 2, "--grid needs a value"),
        (["nowhere", "--plan", "p", "-o", "o.png"], 1, "no bundle folder here"),
        (["{digits}", "--plan", "none.steps", "-o", "o.png"], 1, "the step file cannot be read"),
        (["{digits}", "--plan", "p", "-o", "o.png", "--guidance", "2"], 2, "nothing to guide to: give --label"),
        (["{digits}", "--plan", "p", "-o", "o.png", "--label", "1,2", "-n", "1"], 2, "more than there are samples"),
        (["{digits}", "--plan", "p", "-o", "o.png", "--label", "12"], 1, "or 10 for no class"),
    ],
)
def test_the_sampler_says_what_is_wrong(
    built: Path, tmp_path: Path, arguments: list[str], code: int, text: str
) -> None:
    given = [word.format(digits=shipped_bundle("digits")) for word in arguments]
    done = subprocess.run([built / "dpmrt_sample", *given], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
