"""Every flag of guidance in `dpmrt edit`, `invert` and `interpolate`: what they ask for, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from judged_bundles import write_judged

from dpmrt.runtime import Guidance, Pipeline, cli, image_to_image, inpaint, interpolate, invert, load, reconstruct
from dpmrt.solvers_np import randn

STEPS = 5
IMAGES = np.clip(randn((3, 1, 8, 8), 6), -1, 1)
MASK = np.zeros((8, 8), np.float32)
MASK[:4] = 1
#: flags, and what they ask of the Python functions for three samples
ASKED: dict[str, tuple[list[object], dict[str, Any]]] = {
    "a list": (["--guidance", "1,2.5"], {"guidance": [1.0, 2.5, 1.0]}),
    "all of a form": (
        ["--guidance", 3, "--guidance-rescale", 0.6, "--guidance-interval", "100,900", "--guidance-unit", "time"],
        {"guidance": Guidance(3.0, interval=(100, 900), unit="time", rescale=0.6)},
    ),
    "a schedule": (["--guidance-schedule", "cosine"], {"guidance": Guidance(schedule="cosine")}),
    "a classifier": (
        ["--classifier-scale", "2,0", "--classifier-label", "1,2,0", "--classifier-mode", "noise"],
        {"classifier_scale": [2.0, 0.0, 2.0], "classifier_label": [1, 2, 0], "classifier_mode": "noise"},
    ),
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judged(tmp_path_factory.mktemp("judged") / "bundle")


@pytest.fixture(scope="module")
def pipeline(judged: Path) -> Iterator[Pipeline]:
    with load(judged) as opened:
        yield opened


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "mask.npy", MASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def written(command: str, judged: Path, *arguments: object) -> Any:
    done = run(command, judged, "-o", "out.npy", "--label", "0,2,1", "--steps", STEPS, *arguments)
    assert done.exit_code == 0, done.output
    return np.load("out.npy")


@pytest.mark.parametrize("form", ASKED)
def test_the_flags_ask_for_what_the_functions_take(judged: Path, pipeline: Pipeline, here: Path, form: str) -> None:
    flags, asked = ASKED[form]
    request: dict[str, Any] = {"steps": STEPS, "label": [0, 2, 1], **asked}
    got = written("edit", judged, "--image", "x.npy", "--strength", 0.8, *flags)
    np.testing.assert_array_equal(got, image_to_image(pipeline, IMAGES, 0.8, **request))
    got = written("edit", judged, "--image", "x.npy", "--mask", "mask.npy", *flags)
    np.testing.assert_array_equal(got, inpaint(pipeline, IMAGES, MASK, **request))
    got = written("invert", judged, "--image", "x.npy", "--reconstruct", "again.npy", *flags)
    found = reconstruct(pipeline, IMAGES, **request)
    np.testing.assert_array_equal(got, found.noise)
    np.testing.assert_array_equal(np.load("again.npy"), found.images)
    if form != "a classifier":
        got = written("invert", judged, "--image", "x.npy", "--iterations", 9, *flags)
        np.testing.assert_array_equal(got, invert(pipeline, IMAGES, iterations=9, **request))
    got = written("interpolate", judged, "--seeds", "1,2", "--frames", 3, *flags)
    np.testing.assert_array_equal(got, interpolate(pipeline, (1, 2), 3, **request))


def test_a_list_of_scales_varies_one_picture(judged: Path, pipeline: Pipeline, here: Path) -> None:
    np.save("one.npy", IMAGES[:1])
    done = run("edit", judged, "--image", "one.npy", "-o", "out.npy", "--label", 1, "--guidance", "0,1,2,4")
    assert done.exit_code == 0, done.output
    expected = image_to_image(pipeline, IMAGES[:1], batch=4, label=1, guidance=[0.0, 1.0, 2.0, 4.0])
    np.testing.assert_array_equal(np.load("out.npy"), expected)


def test_a_schedule_from_a_file_is_of_samplings_calls(judged: Path, pipeline: Pipeline, here: Path) -> None:
    np.save("table.npy", np.linspace(4, 0, STEPS))
    asked = Guidance(schedule=np.linspace(4, 0, STEPS))
    got = written("invert", judged, "--image", "x.npy", "--guidance-schedule", "table.npy")
    expected = invert(pipeline, IMAGES, steps=STEPS, label=[0, 2, 1], guidance=asked)
    np.testing.assert_array_equal(got, expected)
    got = written("interpolate", judged, "--seeds", "1,2", "-f", 3, "--guidance-schedule", "table.npy")
    expected = interpolate(pipeline, (1, 2), 3, steps=STEPS, label=[0, 2, 1], guidance=asked)
    np.testing.assert_array_equal(got, expected)


EDIT, INVERT, BETWEEN = (
    ["edit", "--image", "x.npy"],
    ["invert", "--image", "x.npy"],
    ["interpolate", "--seeds", "1,2", "-f", "3"],
)
WRONG: dict[str, tuple[list[str], list[str]]] = {
    "no number": ([*EDIT, "--guidance", "much"], ["--guidance is not a number"]),
    "more than pictures": (
        [*INVERT, "--guidance", "1,2,3,4"],
        ["--guidance lists more than there are samples", "4 of them", "3 or fewer"],
    ),
    "more than frames": ([*BETWEEN, "--classifier-scale", "1,2,3,4"], ["--classifier-scale lists more than there"]),
    "a unit alone": ([*BETWEEN, "--guidance-unit", "time"], ["--guidance-unit is for an interval"]),
    "a class alone": (
        [*INVERT, "--classifier-label", "1"],
        ["--classifier-label and --classifier-mode need a scale"],
    ),
    "an interval": ([*INVERT, "--guidance-interval", "3"], ["guidance has no such interval", "the lower first"]),
    "by iterations": (
        [*INVERT, "--classifier-scale", "2", "--iterations", "3"],
        ["without a classifier's gradient", "--iterations 0"],
    ),
    "the mean of an inversion": (
        [*INVERT, "--classifier-scale", "2", "--classifier-mode", "mean"],
        ["no mean to move where no noise is added", "--classifier-mode noise"],
    ),
    "calls": ([*EDIT, "--guidance-schedule", "two.npy"], ["another number of network calls than the plan"]),
    "no file": ([*BETWEEN, "--guidance-schedule", "none.npy"], ["the schedule of guidance cannot be read"]),
    "over the schedule": (
        [*EDIT, "--guidance-schedule", "two.npy", "-o", "two.npy"],
        ["--out and --guidance-schedule are one file"],
    ),
    "as an option": ([*EDIT, "--option", "classifier_scale=1"], ["classifier_scale cannot be given as --option"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_flags_are_refused_and_leave_nothing(judged: Path, here: Path, case: str) -> None:
    (command, *flags), texts = WRONG[case]
    np.save("two.npy", np.ones(2))
    before = {path: path.read_bytes() for path in here.iterdir()}
    done = run(command, judged, "-o", "out.npy", "--label", "1", "--steps", STEPS, *flags)
    assert (done.exit_code, done.stderr[:7]) == (1, "error: "), done.output
    for text in texts:
        assert text in done.stderr
    assert {path: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize("command", ["edit", "invert", "interpolate"])
def test_help_lists_what_sample_lists(command: str) -> None:
    shown = {name: run(name, "--help").output for name in ("sample", command)}
    flags = [word for word in shown["sample"].split() if word.startswith(("--guidance", "--classifier"))]
    assert len(set(flags)) == 8
    assert set(flags) <= set(shown[command].split())
