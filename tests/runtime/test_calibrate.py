"""`dpmrt calibrate`: what it measures, what it stores, how it goes on after a stop, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_bundles import SCHEDULER, SIDE, Make, reference

from dpmrt.engines import EpsPower, read_eps_power, read_manifest, shipped_bundle
from dpmrt.errors import ArrayError, BundleError, DpmrtError, IntegrityError, ManifestError, OptionError
from dpmrt.runtime import calibrate, load
from dpmrt.runtime.calibration.checkpoint import Checkpoint, Settings
from dpmrt.runtime.calibration.estimate import estimate
from dpmrt.runtime.calibration.statistic import at_all_times
from dpmrt.runtime.calibration.times import choose_times
from dpmrt.runtime.cli import main
from dpmrt.solvers_np import NoiseSchedule, compile_plan, make_schedule, schedule_from_diffusers

LINEAR = schedule_from_diffusers(SCHEDULER)
TIMES = (0.0, 400.0, 999.0)


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (40, 1, SIDE, SIDE)).astype(np.float32)


def files(bundle: Path) -> dict[str, bytes]:
    return {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


# What is measured.


def settings(times: tuple[float, ...], samples: int, batch: int = 16) -> Settings:
    return Settings(times, samples, batch, 0, "data", "network", "scheduler", "engine", {})


def gaussian_network(schedule: NoiseSchedule, spread: float, prediction: str) -> Callable[..., np.ndarray]:
    """Return the network that was trained without error on data of N(0.2, spread^2)."""

    def model(x: np.ndarray, t: float, rows: slice) -> np.ndarray:
        alpha, sigma, scale = (float(f(t)) for f in (schedule.alpha, schedule.sigma, schedule.in_scale))
        x = x / scale
        eps = sigma * (x - alpha * 0.2) / (alpha**2 * spread**2 + sigma**2)
        x0 = (x - sigma * eps) / alpha
        return {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0, "flow": eps - x0}[prediction]

    return model


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [
        ("linear", "epsilon"),
        ("cosine", "sample"),
        ("linear", "v_prediction"),
        ("flow", "flow"),
        ("vp-linear", "epsilon"),
    ],
)
def test_the_mean_is_right_within_its_error(schedule: str, prediction: str) -> None:
    made, spread = make_schedule(schedule), 0.5
    times = choose_times(made, 30)
    x0 = np.random.default_rng(1).normal(0.2, spread, (48, 2, 3)).astype(np.float32)
    asked = settings(times, len(x0))
    found = estimate(
        gaussian_network(made, spread, prediction),
        x0,
        asked,
        schedule=made,
        prediction=prediction,
        state=Checkpoint.fresh(asked),
    )
    alpha, sigma = made.alpha(times), made.sigma(times)
    exact = sigma**2 / (alpha**2 * spread**2 + sigma**2)
    error = np.array(found.error)
    z = (np.array(found.power) - exact) / error
    assert np.abs(z).max() < 4.5
    assert 0.5 < (z**2).mean() < 2.5
    # 48 samples of 6 entries: a square of a normal number has twice its square as variance. Where the network's
    # answer is the noise that was drawn, and little else, there is hardly an error.
    plain = exact * np.sqrt(2 / (48 * 6))
    assert (error < 1.6 * plain).all()
    assert error[-1] < 0.15 * plain[-1]


def test_a_bundle_s_network_is_what_is_measured(make_bundle: Make, data: np.ndarray) -> None:
    bundle = make_bundle()
    found = calibrate(bundle, data, samples=40, batch=16, times=TIMES)
    rng = np.random.default_rng(5)
    for t, power, error in zip(found.times, found.power, found.error):
        alpha, sigma = float(LINEAR.alpha(t)), float(LINEAR.sigma(t))
        many = np.tile(data, (50, 1, 1, 1))
        x = alpha * many + sigma * rng.standard_normal(many.shape)
        want = (reference(x.astype(np.float32), np.full(len(x), t)) ** 2).mean((1, 2, 3))
        assert abs(power - want.mean()) < 5 * error + 5 * want.std() / np.sqrt(len(want))


def test_each_datum_may_have_its_class(make_bundle: Make, data: np.ndarray) -> None:
    bundle = make_bundle(labels=True)
    labels = np.arange(40) % 3
    ask: dict[str, Any] = {"samples": 40, "batch": 16, "times": TIMES}
    of_none = calibrate(bundle, data, **ask)
    assert of_none.conditions == {}
    single = [calibrate(bundle, data, label=k, **ask) for k in range(3)]
    assert single[2].conditions == {"class_labels": "2"}
    each = calibrate(bundle, data, label=labels, **ask)
    assert len(each.conditions["class_labels"]) == 64
    # the table shifts the output, so that classes differ; noise and data are the same in all runs
    of_all = {k: np.array(s.power) for k, s in enumerate(single)}
    assert not np.allclose(of_all[0], of_all[1], rtol=0.02)
    rows = np.array(list(of_all.values()))
    assert ((rows.min(0) < each.power) & (each.power < rows.max(0))).all()
    np.testing.assert_allclose(each.power, rows.mean(0), rtol=0.1)
    again = calibrate(bundle, data, label=list(labels), **ask)
    assert again == each


def test_times_between_those_measured_follow_the_variance_of_x0() -> None:
    few = tuple(float(t) for t in choose_times(LINEAR, 20))
    spread = 0.6
    ratio = LINEAR.sigma(np.arange(1000)) / LINEAR.alpha(np.arange(1000))
    exact = ratio**2 / (spread**2 + ratio**2)
    measured = EpsPower(
        "dpmrt-eps-power",
        1,
        few,
        tuple(exact[np.array(few, int)].tolist()),
        (0.0,) * 20,
        2,
        2,
        0,
        "",
        "",
        "",
        "",
        {},
        "",
    )
    times, gamma = at_all_times(measured, LINEAR, 1.0)
    np.testing.assert_array_equal(times, np.arange(1000))
    np.testing.assert_array_equal(gamma[np.array(few, int)], measured.power)
    of_x0, straight = (ratio**2 * (1 - g) for g in (gamma, np.interp(times, few, measured.power)))
    wanted = ratio**2 * (1 - exact)
    assert np.abs(of_x0 - wanted).max() < 0.005
    assert np.abs(straight - wanted).max() > 0.03


def test_the_times_are_all_some_or_those_given() -> None:
    assert choose_times(LINEAR) == tuple(range(1000))
    assert choose_times(LINEAR, 3) == (0.0, 500.0, 999.0)
    assert choose_times(LINEAR, times=[5, 3, 5]) == (3.0, 5.0)
    vp, flow = make_schedule("vp-linear"), make_schedule("flow")
    assert len(choose_times(vp)) == 100
    assert (choose_times(vp)[0], choose_times(vp)[-1]) == vp.t_range
    assert choose_times(flow)[0] > flow.t_min
    for bad in ([], [0.5], [-1], [1000], ["a"], [float("nan")], 3):
        with pytest.raises(OptionError, match=r"(?s)times are no times of the network.*whole numbers from 0 to 999"):
            choose_times(LINEAR, times=bad)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="exclude each other"):
        choose_times(LINEAR, 5, [1, 2])


# What is stored.


def test_the_statistic_is_a_file_of_the_bundle_like_any_other(make_bundle: Make, data: np.ndarray) -> None:
    bundle = make_bundle()
    before = read_manifest(bundle)
    found = calibrate(bundle, data, samples=40, seed=3, times=TIMES)
    manifest = read_manifest(bundle)
    assert manifest.version == 3
    assert manifest.eps_power is not None
    assert read_eps_power(bundle, manifest) == found
    assert manifest.provenance == {
        **before.provenance,
        "calibration_data_sha256": found.data_sha256,
        "calibration_samples": 40,
        "calibration_seed": 3,
    }
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]  # no checkpoint is left
    other = calibrate(bundle, data, samples=40, seed=4, times=TIMES)
    assert other.power != found.power
    assert len(list((bundle / "statistics").iterdir())) == 1
    assert read_eps_power(bundle, read_manifest(bundle)) == other
    (bundle / str(read_manifest(bundle).eps_power)).write_text("{}")
    with pytest.raises(IntegrityError, match="eps_power-"):
        load(bundle)


def test_sampling_picks_it_up(make_bundle: Make, data: np.ndarray) -> None:
    bundle = make_bundle()
    with (
        load(bundle) as pipeline,
        pytest.raises(BundleError, match=r"(?s)the bundle holds none.*dpmrt calibrate \S*bundle --data DATA"),
    ):
        pipeline.sample(1, solver="ddpm", variance="analytic")
    found = calibrate(bundle, data, samples=40, steps=21)
    with load(bundle) as pipeline:
        times, gamma = at_all_times(found, LINEAR, 1.0)
        for solver in ("ddpm", "ddim", "DDPM"):
            plan = pipeline.plan(7, solver, variance="analytic")
            want = compile_plan(solver, LINEAR, 7, variance="analytic", gamma=gamma, gamma_times=times)
            assert plan.digest() == want.digest()
            assert plan.digest() != pipeline.plan(7, solver).digest()
        own = pipeline.plan(7, "ddpm", variance="analytic", gamma=np.ones(1000))
        assert own.digest() == pipeline.plan(7, "ddpm").digest()
        assert np.isfinite(pipeline.sample(2, solver="ddpm", steps=7, variance="analytic")).all()
        with pytest.raises(OptionError, match="neither solver 'euler' nor grid"):
            pipeline.plan(7, "euler", variance="analytic")


def test_the_data_s_range_bounds_the_variance(make_bundle: Make, data: np.ndarray) -> None:
    bundle = make_bundle()
    manifest = json.loads((bundle / "dpmrt.json").read_text())
    (bundle / "dpmrt.json").write_text(json.dumps({**manifest, "data_range": [-4.0, 4.0]}))
    found = calibrate(bundle, data, samples=8, steps=21)
    with load(bundle) as pipeline:
        times, gamma = at_all_times(found, LINEAR, 4.0)
        want = compile_plan("ddpm", LINEAR, 7, variance="analytic", gamma=gamma, gamma_times=times, radius=4.0)
        assert pipeline.plan(7, "ddpm", variance="analytic").digest() == want.digest()


def test_a_statistic_of_another_network_is_refused(make_bundle: Make, data: np.ndarray) -> None:
    bundle = make_bundle()
    calibrate(bundle, data, samples=8, times=TIMES)
    manifest = read_manifest(bundle)
    path = bundle / str(manifest.eps_power)
    held = json.loads(path.read_text())

    def stored(**change: object) -> None:
        path.write_text(json.dumps({**held, **change}))
        record = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        fields = json.loads((bundle / "dpmrt.json").read_text())
        fields["files"][manifest.eps_power] = record
        (bundle / "dpmrt.json").write_text(json.dumps(fields))

    for change, said in (
        ({"network_sha256": "0" * 64}, r"(?s)was measured with another network.*dpmrt calibrate"),
        ({"power": [1.0, 2.0]}, r"(?s)no row of means of squares.*3 times, 2 means"),
        ({"power": [1.0, -2.0, 1.0]}, "no row of means of squares"),
        ({"times": [0.0, 999.0, 400.0]}, "no row of means of squares"),
        ({"colour": "red"}, "unknown field `colour`"),
        ({"version": 2}, "cannot be read"),
    ):
        stored(**change)
        with pytest.raises(BundleError, match=said), load(bundle) as pipeline:
            pipeline.plan(5, "ddpm", variance="analytic")
    stored()
    fields = json.loads((bundle / "dpmrt.json").read_text())
    (bundle / "dpmrt.json").write_text(json.dumps({**fields, "eps_power": "../elsewhere.json"}))
    with pytest.raises(ManifestError, match=r"(?s)a path leaves the bundle.*eps_power"):
        load(bundle)


# Stopping and going on.

SLOW = """
import sys, time
from dpmrt.runtime import calibrate
calibrate(sys.argv[1], sys.argv[2], samples=40, batch=8, steps=80, callback=lambda done, total: time.sleep(0.01))
"""


def test_a_run_that_was_killed_goes_on_to_the_same_bits(make_bundle: Make, data: np.ndarray, tmp_path: Path) -> None:
    bundle, kept, array = make_bundle(), tmp_path / "kept", tmp_path / "data.npy"
    np.save(array, data)
    shutil.copytree(bundle, kept)
    whole = calibrate(kept, array, samples=40, batch=8, steps=80)
    before, checkpoint = files(bundle), tmp_path / "bundle.calibration.json"
    child = subprocess.Popen([sys.executable, "-c", SLOW, str(bundle), str(array)])
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    left = json.loads(checkpoint.read_text())
    assert 0 < len(left["power"]) < 80
    assert files(bundle) == before
    made: list[int] = []
    found = calibrate(
        bundle, array, samples=40, batch=8, steps=80, callback=lambda done, total: made.append(done) or None
    )
    assert made[0] == 5 * len(left["power"]) + len(left["partial"]) // 8 + 1
    assert made[-1] == 400
    assert found == whole
    assert files(bundle) == files(kept)
    assert not checkpoint.exists()


class Stop(Exception):
    pass


def stop_after(calls: int) -> Callable[[int, int], None]:
    def callback(done: int, total: int) -> None:
        if done == calls:
            raise Stop

    return callback


@pytest.mark.parametrize("calls", [1, 4, 5, 6, 14])
def test_any_batch_may_be_the_last(make_bundle: Make, data: np.ndarray, tmp_path: Path, calls: int) -> None:
    bundle, ask = make_bundle(), {"samples": 37, "batch": 8, "times": TIMES}
    whole = calibrate(bundle, data, **ask, checkpoint=tmp_path / "whole")
    before = files(bundle)
    with pytest.raises(Stop):
        calibrate(bundle, data, **ask, checkpoint=tmp_path / "here", callback=stop_after(calls))
    assert files(bundle) == before
    assert calibrate(bundle, data, **ask, checkpoint=tmp_path / "here") == whole
    assert not (tmp_path / "here").exists()


def test_a_bundle_that_was_changed_meanwhile_is_left_alone(make_bundle: Make, data: np.ndarray) -> None:
    bundle = make_bundle()

    def exported_again(done: int, total: int) -> None:
        fields = json.loads((bundle / "dpmrt.json").read_text())
        fields["files"]["unet/model.onnx"]["sha256"] = "0" * 64
        (bundle / "dpmrt.json").write_text(json.dumps(fields))

    with pytest.raises(BundleError, match=r"(?s)changed while it was measured.*another unet/model\.onnx"):
        calibrate(bundle, data, samples=8, times=(0,), callback=exported_again)
    assert read_manifest(bundle, check=False).eps_power is None


def test_a_checkpoint_of_something_else_is_refused(make_bundle: Make, data: np.ndarray, tmp_path: Path) -> None:
    bundle, path = make_bundle(labels=True), tmp_path / "check point"
    ask: dict[str, Any] = {"samples": 24, "batch": 8, "times": TIMES, "checkpoint": path}
    with pytest.raises(Stop):
        calibrate(bundle, data, **ask, callback=stop_after(4))
    held = path.read_bytes()
    for change, said in (
        ({"seed": 1}, r"(?s)of another calibration.*seed = 0 in .*seed = 1.*--restart"),
        ({"samples": 16}, "samples = 24"),
        ({"batch": 12}, "batch = 8"),
        ({"times": (0, 999)}, r"(?s)3 times, 0 to 999.*2 times, 0 to 999"),
        ({"label": 1}, r"conditions = \{\}"),
        ({"engine": "numpy-like"}, "engine"),
    ):
        with pytest.raises(DpmrtError, match=said):
            calibrate(bundle, data, **{**ask, **change})
        assert path.read_bytes() == held
    with pytest.raises(OptionError, match="data_sha256"):
        calibrate(bundle, data[::-1].copy(), **ask)
    for broken, said in (
        (b"{", r"(?s)checkpoint cannot be read.*rm '.*check point'"),
        (held.replace(b'"partial": [', b'"partial": [\n[0.5, 1.0],'), "checkpoint does not hold together"),
    ):
        path.write_bytes(broken)
        with pytest.raises(OptionError, match=said):
            calibrate(bundle, data, **ask)
    assert calibrate(bundle, data, **{**ask, "seed": 1}, restart=True).seed == 1
    assert not path.exists()


# Data of another kind.


def test_a_folder_of_pictures_and_arrays_is_the_array(make_bundle: Make, tmp_path: Path) -> None:
    bundle, folder = make_bundle(), tmp_path / "pictures"
    folder.mkdir()
    raw = np.random.default_rng(2).integers(0, 256, (8, 1, SIDE, SIDE)).astype(np.uint8)
    for k in range(3):
        Image.fromarray(raw[k, 0]).save(folder / f"{k}.png")
    np.save(folder / "3.npy", raw[3])
    np.save(folder / "4.npy", raw[4:])
    (folder / "notes.txt").write_text("of no matter")
    of_folder = calibrate(bundle, folder, samples=8, times=TIMES)
    of_array = calibrate(bundle, raw, samples=8, times=TIMES)
    of_floats = calibrate(bundle, (raw / 127.5 - 1).astype(np.float32), samples=8, times=TIMES)
    assert (of_folder.data, of_array.data) == ("pictures", "an array")
    assert of_folder.power == of_array.power
    np.testing.assert_allclose(of_floats.power, of_array.power, rtol=1e-5)


def _png(path: Path, mode: str, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    path.mkdir()
    Image.new(mode, size).save(path / "a.png")
    return path


BAD_DATA: dict[str, tuple[Callable[[Path, np.ndarray], Any], str]] = {
    "shape": (lambda p, d: d[:, :, :4], r"(?s)another shape.*\(40, 1, 4, 8\) in the data.*\(n, 1, 8, 8\)"),
    "rank": (lambda p, d: d[:, 0, 0], "another shape"),
    "number": (lambda p, d: np.float32(3), "another shape"),
    "dtype": (lambda p, d: d.astype(np.int64), r"(?s)wrong dtype.*int64.*uint8 for pictures"),
    "range": (lambda p, d: 3 * d, r"(?s)outside of the range.*-1 to 1, the bundle's data_range.*uint8"),
    "nan": (lambda p, d: np.where(d > 0.99, np.nan, d), "NaN or infinity"),
    "few": (lambda p, d: d[:3], r"(?s)fewer data.*3 in an array.*at least 24.*--samples 3"),
    "nowhere": (lambda p, d: p / "nowhere", "there is no data here"),
    "kind": (lambda p, d: Path(__file__), "of an unknown kind"),
    "empty": (lambda p, d: _folder(p / "empty"), "the folder holds no data"),
    "no array": (lambda p, d: _written(p / "a.npy", b"text"), r"cannot be read"),
    "pickle": (lambda p, d: _saved(p / "a.npy", np.array([{}], object)), "cannot be read"),
    "several": (lambda p, d: _several(p / "a.npy", d), "no single array"),
    "no picture": (
        lambda p, d: _written(_folder(p / "f") / "a.png", b"text").parent,
        "picture of the data cannot be",
    ),
    "colour": (lambda p, d: _png(p / "f", "RGB"), r"(?s)another shape.*\(3, 8, 8\)"),
    "size": (lambda p, d: _png(p / "f", "L", (4, 8)), r"(?s)another shape.*\(1, 8, 4\)"),
    "palette": (lambda p, d: _png(p / "f", "P"), r"(?s)another kind of pixels.*mode P"),
}


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def _several(path: Path, array: np.ndarray) -> Path:
    with path.open("wb") as stream:
        np.savez(stream, a=array, b=array)
    return path


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_of_another_kind_is_refused(plain: Path, data: np.ndarray, tmp_path: Path, case: str) -> None:
    make, said = BAD_DATA[case]
    before = files(plain)
    with pytest.raises(ArrayError, match=said):
        calibrate(plain, make(tmp_path, data), samples=24, times=TIMES, checkpoint=tmp_path / "c")
    assert files(plain) == before
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 7}, r"(?s)samples is out of range.*at least 8"),
        ({"batch": 0}, "batch is out of range"),
        ({"seed": -1}, "seed is out of range"),
        ({"steps": 1}, "steps is out of range"),
        ({"steps": 2000}, r"(?s)steps is out of range.*2 to 1000"),
        ({"label": 1}, "the network takes no class labels"),
        ({"conditions": {"text": np.zeros((1, 2))}}, "name that the network does not know"),
        ({"conditions": {"text": np.zeros((5, 2))}}, r"(?s)neither one for all data nor one for each.*5 for 40"),
        ({"checkpoint": "nowhere/at/all"}, "the folder does not exist"),
        ({"engine": "abacus"}, "abacus"),
    ],
)
def test_requests_that_cannot_be_honoured_are_refused(
    plain: Path, data: np.ndarray, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DpmrtError, match=said):
        calibrate(plain, data, **{"samples": 8, "checkpoint": tmp_path / "c", **options})
    assert not (tmp_path / "c").exists()


def test_the_checkpoint_is_outside_of_the_bundle(plain: Path, data: np.ndarray) -> None:
    before = files(plain)
    with pytest.raises(OptionError, match="the checkpoint lies inside the bundle"):
        calibrate(plain, data, samples=8, checkpoint=plain / "unet/c.json")
    assert files(plain) == before


def test_labels_are_looked_at_before_the_network_runs(labelled: Path, data: np.ndarray, tmp_path: Path) -> None:
    labels = np.zeros(40, int)
    labels[-1] = 7
    with pytest.raises(OptionError, match="label is out of range"):
        calibrate(labelled, data, samples=40, label=labels, callback=stop_after(1), checkpoint=tmp_path / "c")
    with pytest.raises(ArrayError, match=r"(?s)class_labels is neither one for all.*3 for 40 data"):
        calibrate(labelled, data, samples=40, label=[0, 1, 2], checkpoint=tmp_path / "c")


def test_what_cannot_hold_a_statistic(make_bundle: Make, data: np.ndarray) -> None:
    with pytest.raises(BundleError, match=r"(?s)ships with dpmrt and is left as it is.*cp -r"):
        calibrate(shipped_bundle("digits"), data)
    with pytest.raises(BundleError, match=r"(?s)without a manifest cannot hold.*dpmrt export"):
        calibrate(make_bundle(manifest=False), data)


# From the command line, without torch.


def test_the_command(make_bundle: Make, data: np.ndarray, tmp_path: Path) -> None:
    bundle, array, labels = make_bundle(labels=True), tmp_path / "d.npy", tmp_path / "l.npy"
    np.save(array, data)
    np.save(labels, np.arange(40) % 3)

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    asked = ["calibrate", bundle, "--data", array, "--samples", 16, "--batch", 8, "--times", "0,400,999"]
    done = run(*asked, "--label", labels, "--progress")
    assert done.exit_code == 0, done.output
    assert "measured at 3 times over 16 samples" in done.stdout
    assert "calibrating" in done.stderr
    assert read_eps_power(bundle, read_manifest(bundle)) == calibrate(
        bundle, array, samples=16, batch=8, times=TIMES, label=np.arange(40) % 3
    )
    shown = run("inspect", bundle)
    assert "analytic variance  measured at 3 times over 16 samples, error at most" in shown.stdout
    assert "calibration_seed" in shown.stdout
    out = tmp_path / "a.npy"
    sampled = run("sample", bundle, "-o", out, "--solver", "ddpm", "--option", "variance=analytic", "--label", 1)
    assert sampled.exit_code == 0, sampled.output
    quiet = run(*asked, "--label", 1, "-q")
    assert (quiet.exit_code, quiet.output) == (0, "")
    for wrong, said in (
        (["--times", "0,many"], "--times is no list of times"),
        (["--label", "l.npy"], "--label cannot be read"),
        (["--samples", 400], "fewer data"),
    ):
        refused = run(*asked, *wrong)
        assert refused.exit_code == 1
        assert refused.stderr.startswith("error: ")
        assert said in refused.stderr
    assert "analytic variance  not measured" in run("inspect", "digits").stdout
