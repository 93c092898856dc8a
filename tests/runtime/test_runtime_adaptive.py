"""DPM-Solver-12 and -23 on a bundle, from Python and from the command line, with their reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_bundles import Make

from dpmrt.errors import BudgetError, OptionError
from dpmrt.runtime import load
from dpmrt.runtime.cli import main
from dpmrt.runtime.drivers import DRIVERS, find_driver
from dpmrt.solvers_np import ADAPTIVE, AdaptiveOptions, make_noise, make_schedule, run_adaptive
from dpmrt.solvers_np.adaptive import start_scale

PNG = b"\x89PNG\r\n\x1a\n"


def sample(bundle: Path, out: Path, *arguments: object, solver: str = "dpm-solver-23") -> Result:
    """Run `dpmrt sample` for three samples."""
    asked = ["sample", bundle, "-o", out, "-n", 3, "--solver", solver, *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in asked])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", ADAPTIVE)
def test_a_bundle_is_sampled_with_its_network_schedule_and_prediction(solver: str, dtype: str, plain: Path) -> None:
    asked: dict[str, Any] = {"rtol": 0.01, "controller": "pid", "clip": 1.0}
    with load(plain) as pipeline:
        driven = pipeline.drive(2, solver=solver, seed=[4, 5], dtype=dtype, **asked)
        np.testing.assert_array_equal(
            driven.samples, pipeline.sample(2, solver=solver, seed=[4, 5], dtype=dtype, **asked)
        )
        model = pipeline.model(2)
        x = make_noise("torch-cpu", [4, 5]).normal(model.shape).astype(dtype)
        samples, report = run_adaptive(solver, model, model.schedule, x, prediction=model.prediction, **asked)
    assert driven.samples.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(driven.samples, samples)
    assert driven.report.to_json() == report.to_json()
    assert report.calls == model.calls


def test_every_adaptive_solver_is_a_driver_under_its_name() -> None:
    for name in ADAPTIVE:
        driver: Any = find_driver(name)
        assert driver.solver == name
    assert set(ADAPTIVE) <= set(DRIVERS)


def test_unit_noise_is_scaled_to_the_schedule_s_first_level() -> None:
    exploding = make_schedule("ve", sigma_max=30.0)
    assert start_scale(exploding, AdaptiveOptions()) == pytest.approx(30.0)
    assert start_scale(make_schedule("linear"), AdaptiveOptions()) == 1.0
    part = AdaptiveOptions(t_start=float(exploding.t_of_lambda(0.0)))
    assert start_scale(exploding, part) == pytest.approx(1.0)


def test_networks_of_whole_timesteps_are_refused(make_bundle: Make) -> None:
    with load(make_bundle(time="int64")) as pipeline, pytest.raises(OptionError, match="takes whole timesteps"):
        pipeline.sample(solver="dpm-solver-23")


def test_wrong_options_are_refused(plain: Path) -> None:
    with load(plain) as pipeline:
        for options, text in (
            ({"dtype": "float16"}, "expected: one of 'float32', 'float64'"),
            ({"rtol": "a"}, "rtol must be a finite number"),
            ({"t_start": "late"}, "t_start must be a finite number or None"),
            ({"order": 2}, "has no option of this name"),
            ({"steps": 5}, "without a fixed grid takes no such argument"),
        ):
            with pytest.raises(OptionError, match=text):
                pipeline.sample(solver="dpm-solver-23", **options)  # type: ignore[arg-type]


def test_a_run_out_of_calls_carries_a_report_that_can_be_drawn(plain: Path, tmp_path: Path) -> None:
    with load(plain) as pipeline, pytest.raises(BudgetError) as caught:
        pipeline.sample(2, solver="dpm-solver-23", max_calls=7, rtol=1e-4, atol=1e-4)
    assert caught.value.samples.shape == (2, 1, 8, 8)
    drawn = caught.value.report.plot(tmp_path / "a.png")
    assert drawn.read_bytes().startswith(PNG)


def test_the_command_line_writes_samples_and_report(plain: Path, tmp_path: Path) -> None:
    out, numbers, picture = tmp_path / "a.npy", tmp_path / "a.json", tmp_path / "a.png"
    done = sample(plain, out, "--option", "rtol=0.01", "--report", numbers)
    assert done.exit_code == 0, done.output
    report = json.loads(numbers.read_text())
    assert report["options"]["rtol"] == 0.01
    assert f"3 samples, {report['calls']} network calls" in done.output
    with load(plain) as pipeline:
        np.testing.assert_array_equal(np.load(out), pipeline.sample(3, solver="dpm-solver-23", rtol=0.01))
    assert sample(plain, out, "--report", picture, solver="dpm-solver++12").exit_code == 0
    assert picture.read_bytes().startswith(PNG)


def test_of_a_failed_run_the_report_is_written_and_what_it_had_reached(plain: Path, tmp_path: Path) -> None:
    out, numbers = tmp_path / "a.npy", tmp_path / "a.json"
    done = sample(
        plain, out, "--option", "max_calls=8", "--option", "rtol=1e-4", "--option", "atol=1e-4", "--report", numbers
    )
    assert done.exit_code == 1
    assert "the network calls ran out" in done.output
    assert not out.exists()
    report = json.loads(numbers.read_text())
    assert not report["complete"]
    assert report["calls"] <= 8
    with load(plain) as pipeline, pytest.raises(BudgetError) as caught:
        pipeline.sample(3, solver="dpm-solver-23", rtol=1e-4, atol=1e-4, max_calls=8)
    kept = tmp_path / "a.partial.npy"
    np.testing.assert_array_equal(np.load(kept), caught.value.samples)
    assert f"kept what was reached, the state at t = {caught.value.t:g}: {kept}" in done.output


def test_reports_that_cannot_be(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.npy"
    for arguments, solver, text in (
        (["--report", tmp_path / "r.txt"], "dpm-solver-23", "the report is of an unknown kind"),
        (["--report", tmp_path / "r.json"], "ddim", "--report is for solvers without a fixed grid"),
        (["--report", tmp_path / "no" / "r.json"], "dpm-solver-23", "the folder does not exist"),
        (["--report", plain / "r.json"], "dpm-solver-23", "--report lies inside the bundle"),
        (["--save-plan", tmp_path / "p"], "dpm-solver-23", "takes no such argument"),
    ):
        done = sample(plain, out, *arguments, solver=solver)
        assert done.exit_code == 1
        assert text in done.output
    assert list(tmp_path.iterdir()) == []
