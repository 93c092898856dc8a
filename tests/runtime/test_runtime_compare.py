from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny_conditioned import write_conditioned

from dpmrt.runtime import cli, load
from dpmrt.runtime.charts import legible
from dpmrt.runtime.comparison import USUAL, Entry, compare_solvers, fitting_plan, total_calls
from dpmrt.solvers_np import StepEvent

Request = dict[str, object]
REQUEST: Request = {"batch": 2, "seed": 1}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["compare", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize("calls", [3, 4, 7, 20])
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmsolver++singlestep"])
def test_a_plan_is_as_long_as_the_calls_allow(plain: Path, solver: str, calls: int) -> None:
    with load(plain) as pipeline:
        plan = fitting_plan(lambda steps: pipeline.plan(steps, solver), calls)
        assert plan is not None
        assert plan.calls <= calls < pipeline.plan(plan.meta["steps"] + 1, solver).calls


def test_the_distance_is_that_of_the_samples_and_falls_with_calls(plain: Path) -> None:
    entries = [Entry("a", "ddim", {}), Entry("b", "DPM++ 2M", {}), Entry("c", "ddim", {"eta": 1.0})]
    done: list[StepEvent] = []
    with load(plain) as pipeline:
        curves = compare_solvers(pipeline, entries, [5, 40], reference=300, request=REQUEST, callback=done.append)
        expected = pipeline.sample(2, seed=1, steps=40, solver="ddim")
        exact = pipeline.sample(2, seed=1, steps=300, solver="dpmsolver++", lower_order_final=False)
        assert len(done) == total_calls(pipeline, entries, [5, 40], 300)
    assert [(c.name, c.stochastic, len(c.points)) for c in curves] == [
        ("a", False, 2),
        ("b", False, 2),
        ("c", True, 2),
    ]
    np.testing.assert_array_equal(curves[0].points[1].samples, expected)
    off = np.sqrt(((expected - exact) ** 2).mean() / (exact**2).mean())
    assert curves[0].points[1].error == pytest.approx(off, rel=1e-5)
    for curve in curves[:2]:
        assert curve.points[1].error < 0.5 * curve.points[0].error
    assert all(np.isnan(point.error) for point in curves[2].points)


def test_solvers_on_a_network_with_conditions_and_open_sizes(tmp_path: Path) -> None:
    text = tmp_path / "text.npy"
    np.save(text, np.ones((2, 3, 5), np.float32))
    told = {"encoder_hidden_states": ("float32", ("batch", "tokens", 5))}
    bundle = write_conditioned(tmp_path / "bundle", conditions=told)
    table = tmp_path / "a.csv"
    given = ["--condition", f"encoder_hidden_states={text}", "--shape", "4,6,8"]
    rest = ["--calls", "4", "--reference", 30, "--solver", "ddim", "--table", table]
    result = run("solvers", bundle, *given, *rest)
    assert result.exit_code == 0, result.output
    with load(bundle) as pipeline:
        request: Any = {"shape": (4, 6, 8), "conditions": {"encoder_hidden_states": np.load(text)}}
        exact = pipeline.sample(2, steps=30, solver="dpmsolver++", lower_order_final=False, **request)
        found = pipeline.sample(2, steps=4, solver="ddim", **request)
    (row,) = csv.DictReader(table.open())
    off = np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean())
    assert float(row["error"]) == pytest.approx(off, rel=1e-5)


def test_solvers_on_the_command_line(labelled: Path, tmp_path: Path) -> None:
    picture, table = tmp_path / "a.png", tmp_path / "a.csv"
    chosen = ["--solver", "ddim", "--solver", "dpmsolver++,order=3", "--solver", "scheduler", "--solver", "Euler a"]
    rest = ["--calls", "4,9", "--reference", 50, "-n", 2, "--label", 1, "--progress"]
    result = run("solvers", labelled, *chosen, *rest, "-o", picture, "--table", table)
    assert result.exit_code == 0, result.output
    assert "comparing" in result.stderr
    with Image.open(picture) as image:
        assert image.size[0] > 600
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
    rows = list(csv.DictReader(table.open()))
    assert [(row["solver"], row["calls"]) for row in rows[:4]] == [
        ("ddim", "4"),
        ("ddim", "9"),
        ("dpmsolver++,order=3", "4"),
        ("dpmsolver++,order=3", "9"),
    ]
    assert rows[-1]["error"] == ""
    assert float(rows[0]["error"]) > float(rows[1]["error"]) > 0
    assert result.stdout.count("adds noise") == 2
    assert "wrote" in result.stdout


def test_the_usual_solvers_run(plain: Path) -> None:
    result = run("solvers", plain, "--calls", "6", "--reference", 20, "-n", 1)
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in USUAL)


def test_schedules_on_the_command_line(plain: Path, tmp_path: Path) -> None:
    result = run("schedules", "linear", "vp-linear", "edm", "--steps", 5, "-o", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert "karras" in result.stdout
    assert "-5.0586" in result.stdout or "-5.059" in result.stdout
    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] > 600
    own = run("schedules", "--bundle", plain, "--grid", "trailing", "--steps", 4)
    assert str(plain) in own.stdout
    assert "999" in own.stdout
    assert "749" in own.stdout


REFUSED = {
    "no solver": (["solvers", "{}", "--solver", "dimm"], ["unknown solver", "did you mean 'ddim'"]),
    "a solver's option": (["solvers", "{}", "--solver", "ddim,order=2"], ["neither solver 'ddim'", "'order'"]),
    "half an option": (["solvers", "{}", "--solver", "ddim,order"], ["has no value", "KEY=VALUE"]),
    "too few calls": (["solvers", "{}", "--solver", "pndm", "--calls", "1"], []),
    "no calls": (["solvers", "{}", "--calls", "ten"], ["--calls is no list of numbers", "'ten'"]),
    "zero calls": (["solvers", "{}", "--calls", "0,5"], ["--calls is no list of numbers"]),
    "picture": (["solvers", "{}", "-o", "a.jpg"], ["the picture is of an unknown kind", "-o out.png"]),
    "table": (["solvers", "{}", "--table", "a.txt"], ["the table is of an unknown kind", ".csv"]),
    "no schedule": (["schedules", "linaer"], ["unknown schedule", "did you mean 'linear'"]),
    "no steps": (["schedules", "--steps", "0"], ["--steps is out of range", "1 to 10000"]),
    "no grid": (["schedules", "--grid", "karas"], ["unknown grid", "did you mean 'karras'"]),
    "folder": (["schedules", "-o", "nowhere/a.png"], ["nowhere"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, texts = REFUSED[case]
    result = run(*(str(plain) if a == "{}" else a for a in arguments))
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    for text in texts:
        assert text in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_has_examples() -> None:
    for arguments in ([], ["schedules"], ["solvers"]):
        assert "dpmrt compare solvers" in run(*arguments, "--help").output or "schedules" in arguments
        assert "Examples:" in run(*arguments, "--help").output


def test_without_matplotlib_it_says_what_to_install(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("solvers", plain, "-o", "a.png")
    assert result.exit_code == 1
    assert "pip install 'dpmrt[viz]'" in result.stderr


def test_numbers_on_the_axis_do_not_run_into_each_other() -> None:
    assert legible([5, 10, 20, 40, 5, 9, 19, 39, 5, 10, 20, 38]) == [5, 9, 10, 20, 40]
    assert legible([38, 39, 40]) == [40]
    assert legible([]) == []
