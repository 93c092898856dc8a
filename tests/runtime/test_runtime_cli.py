from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny_bundles import Make
from tiny_conditioned import write_conditioned

import dpmrt
from dpmrt.runtime import backends, cli, load
from dpmrt.runtime.backends import FunctionBackend, Tensor
from dpmrt.solvers_np import StepPlan, randn


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def refused(result: Result, *texts: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    for text in texts:
        assert text in result.stderr


def test_a_png_of_many_samples(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    result = run("sample", labelled, "-o", out, "--label", "all", "-n", 5, "--grid", 3, "--scale", 2)
    assert result.exit_code == 0, result.output
    with Image.open(out) as picture:
        assert (picture.size, picture.mode) == ((3 * 9 * 2 - 2, 2 * 9 * 2 - 2), "L")
    assert result.stdout.startswith(f"wrote {out}: 5 samples, 5 network calls, ")
    assert list(tmp_path.iterdir()) == [out]


def test_an_npy_holds_the_pipelines_samples(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.npy"
    result = run("sample", labelled, "-o", out, "--label", "0,2", "-n", 3, "--seed", 4, "--guidance", 1.5, "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    with load(labelled) as pipeline:
        np.testing.assert_array_equal(np.load(out), pipeline.sample(3, label=[0, 2, 0], seed=4, guidance=1.5))


def test_solver_options_reach_the_plan_and_the_plan_can_be_saved_and_followed(plain: Path, tmp_path: Path) -> None:
    first, again, plan = tmp_path / "a.npy", tmp_path / "b.npy", tmp_path / "a.plan"
    options = ["--solver", "dpmsolver++", "--steps", 6, "--option", "order=2", "--option", "grid=logsnr"]
    assert run("sample", plain, "-o", first, *options, "--save-plan", plan).exit_code == 0
    with load(plain) as pipeline:
        assert StepPlan.load(plan).digest() == pipeline.plan(6, "dpmsolver++", order=2, grid="logsnr").digest()
    assert run("sample", plain, "-o", again, "--plan", plan).exit_code == 0
    np.testing.assert_array_equal(np.load(first), np.load(again))


def test_noise_from_a_file_sets_the_batch(plain: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", randn((3, 1, 8, 8), seed=6))
    assert run("sample", plain, "-o", tmp_path / "a.npy", "--noise", tmp_path / "x.npy").exit_code == 0
    with load(plain) as pipeline:
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), pipeline.sample(3, seed=6))


def test_a_progress_bar_goes_to_stderr_when_asked_for(plain: Path, tmp_path: Path) -> None:
    result = run("sample", plain, "-o", tmp_path / "a.npy", "--progress")
    assert "sampling" in result.stderr
    assert "sampling" not in result.stdout
    assert "sampling" not in run("sample", plain, "-o", tmp_path / "a.npy").stderr


WRONG: dict[str, tuple[list[object], list[str]]] = {
    "stdout": (["-o", "-"], ["has no file name", "do not go to stdout", "-o samples.png"]),
    "no name": (["-o", ".png"], ["has no file name", "-o samples.png"]),
    "engine for functions": (
        ["-o", "a.png", "--engine", "numpy"],
        ["unknown engine", "auto, emulated, onnxruntime", "--engine"],
    ),
    "many threads": (["-o", "a.png", "--threads", 10**6], ["threads is out of range", "processors"]),
    "many samples": (["-o", "a.png", "-n", 4611686018427387904], ["batch is out of range"]),
    "huge pixels": (["-o", "a.png", "--scale", 100000], ["too large", "100 megapixels"]),
    "schedule": (["-o", "a.png", "--solver", "ddim", "--option", "schedule=linear"], ["no option of this name"]),
    "schedule as key": (["-o", "a.png", "--option", "schedule=linear"], ["no key of this name"]),
    "self": (["-o", "a.png", "--option", "self=1"], ["self = 1"]),
    "prediction": (["-o", "a.png", "--option", "prediction_type=sample"], ["predicts something else"]),
    "plan over output": (["-o", "a.npy", "--save-plan", "./a.npy"], ["--save-plan and --out are one file"]),
    "plan over noise": (
        ["-o", "a.npy", "--noise", "x", "--save-plan", "x"],
        ["--save-plan and --noise are one file"],
    ),
    "plan over plan": (["-o", "a.npy", "--plan", "x", "--save-plan", "x"], ["--save-plan and --plan are one file"]),
    "kind": (["-o", "a.jpg"], ["unknown kind", "ends in .png or .npy", "-o a.png"]),
    "no kind": (["-o", "a"], ["unknown kind"]),
    "no folder": (["-o", "no/a.png"], ["the folder does not exist", "no/a.png"]),
    "plan folder": (["-o", "a.png", "--save-plan", "no/a.plan"], ["the folder does not exist", "no/a.plan"]),
    "layout of numbers": (["-o", "a.npy", "--grid", 2], ["are for pictures"]),
    "empty grid": (["-o", "a.png", "--grid", 0], ["grid is out of range"]),
    "engine": (["-o", "a.png", "--engine", "tpu"], ["unknown engine", "onnxruntime"]),
    "threads": (["-o", "a.png", "--threads", 0], ["threads is out of range"]),
    "steps": (["-o", "a.png", "--steps", 0], ["steps is out of range"]),
    "solver": (["-o", "a.png", "--solver", "dim"], ["unknown solver", "did you mean 'ddim'?"]),
    "driver": (["-o", "a.png", "--solver", "dpm-solver-32"], ["unknown solver", "dpm-solver-23"]),
    "option": (["-o", "a.png", "--option", "x=1"], ["x = 1"]),
    "option without value": (["-o", "a.png", "--option", "order"], ["has no value", "KEY=VALUE"]),
    "option of its own": (["-o", "a.png", "--option", "steps=2"], ["cannot be given as --option", "use --steps"]),
    "label": (["-o", "a.png", "--label", "1"], ["the network takes no class labels"]),
    "label word": (["-o", "a.png", "--label", "cat"], ["--label is not a class"]),
    "all labels": (["-o", "a.png", "--label", "all"], ["does not say which classes"]),
    "more labels": (["-o", "a.png", "--label", "0,1", "-n", 1], ["more labels than samples"]),
    "noise": (["-o", "a.png", "--noise", "none.npy"], ["the noise cannot be read", "none.npy"]),
    "plan": (["-o", "a.png", "--plan", "none.plan"], ["cannot be read", "none.plan"]),
    "seed": (["-o", "a.png", "--seed", -1], ["seed must be a whole number"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_one_error_and_leaves_nothing(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, texts = WRONG[case]
    refused(run("sample", plain, *arguments), *texts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--out", "--save-plan"])
def test_nothing_is_written_into_the_bundle(make_bundle: Make, tmp_path: Path, option: str) -> None:
    root = make_bundle()
    (tmp_path / "link").symlink_to(root)
    before = sorted(root.rglob("*"))
    arguments = {"--out": tmp_path / "a.npy", option: tmp_path / "link/unet/b.npy"}
    refused(run("sample", root, *(part for pair in arguments.items() for part in pair)), f"{option} lies inside the")
    assert sorted(root.rglob("*")) == before
    assert not (tmp_path / "a.npy").exists()


def test_no_name_is_no_bundle(tmp_path: Path) -> None:
    refused(run("sample", "", "-o", tmp_path / "a.png"), "this names no bundle")
    refused(run("inspect", ""), "this names no bundle")


def test_the_ending_may_be_upper_case_and_one_call_is_singular(plain: Path, tmp_path: Path) -> None:
    result = run("sample", plain, "-o", tmp_path / "a.PNG", "--steps", 1)
    assert "1 sample, 1 network call, " in result.stdout
    with Image.open(tmp_path / "a.PNG") as picture:
        assert picture.format == "PNG"
    assert run("sample", plain, "-o", tmp_path / "a.NPY").exit_code == 0
    assert np.load(tmp_path / "a.NPY").shape == (1, 1, 8, 8)


def test_noise_from_a_file_drops_no_label(labelled: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", randn((2, 1, 8, 8), seed=6))
    out, start = tmp_path / "a.npy", ["--noise", tmp_path / "two.npy"]
    refused(run("sample", labelled, "-o", out, *start, "--label", "0,1,2"), "more labels than samples", "3 labels")
    assert run("sample", labelled, "-o", out, *start, "--label", "0").exit_code == 0


def test_an_npy_is_what_numpy_would_have_written(plain: Path, tmp_path: Path) -> None:
    run("sample", plain, "-o", tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.load(tmp_path / "a.npy"))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
def test_a_disk_that_refuses_numbers_is_explained(plain: Path, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from dpmrt.runtime.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); main(sys.argv[1:])"
    )
    done = _python("-c", code, "sample", plain, "-o", tmp_path / "a.npy", "-n", 64)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert done.stderr.startswith("error: the file is larger than is allowed here\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["inspect"], ["--help"]])
def test_a_stdout_that_takes_nothing_is_one_error(plain: Path, arguments: list[object]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dpmrt.runtime", *arguments, *([plain] if arguments == ["inspect"] else [])],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_folder_without_a_manifest_is_noticed(make_bundle: Make, tmp_path: Path) -> None:
    root, notice = make_bundle(manifest=False), "no dpmrt.json: inputs read from the graph, files not checked\n"
    assert run("inspect", root).stderr == notice
    assert run("sample", root, "-o", tmp_path / "a.npy").stderr == notice
    assert run("sample", root, "-o", tmp_path / "a.npy", "-q").stderr == ""


def test_a_ctrl_c_that_became_an_import_error_is_a_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        module = "dpmrt.runtime.cli.sample"

        def load(self) -> None:
            raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(cli, "_entry_points", lambda: {"brew": Interrupted()})
    result = run("brew")
    assert (result.exit_code, result.stderr.strip()) == (130, "cancelled")


def test_pickled_noise_is_not_unpickled(plain: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(run("sample", plain, "-o", tmp_path / "a.npy", "--noise", tmp_path / "x.npy"), "noise cannot be read")


@pytest.mark.parametrize(("shape", "axis"), [((4, 8, 8), 1), ((2, 5), 1), ((3, 4, 8, 8), 2)])
def test_what_is_no_picture_is_refused_as_one_before_the_network_runs(
    tmp_path: Path, shape: tuple[int, ...], axis: int
) -> None:
    root = write_conditioned(tmp_path / "bundle", sample=("batch", *shape), axis=axis)
    refused(run("sample", root, "-o", tmp_path / "a.png"), "are no pictures", str(shape[-3:]), "-o samples.npy")
    assert run("sample", root, "-o", tmp_path / "a.npy", "-n", 2).exit_code == 0
    assert np.load(tmp_path / "a.npy").shape == (2, *shape)


def test_a_damaged_bundle_is_explained(make_bundle: Make, tmp_path: Path) -> None:
    root = make_bundle()
    (root / "unet/model.onnx").write_bytes(b"x")
    refused(run("sample", root, "-o", tmp_path / "a.png"), "truncated", "dpmrt export")
    refused(run("inspect", root), "truncated")


def test_a_command_line_that_click_refuses_exits_with_2(plain: Path) -> None:
    for arguments in (["sample", plain], ["sample", plain, "-o", "a.png", "--steps", "many"], ["smaple"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "Traceback" not in result.output


def test_nan_from_the_network_leaves_the_old_file(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opener(root: Path, network: Any) -> FunctionBackend:
        tensors = [[Tensor(s.name, s.dtype, s.shape) for s in specs] for specs in (network.inputs, network.outputs)]
        return FunctionBackend(lambda sample, timestep: sample * np.nan, *tensors)

    monkeypatch.setitem(backends.BACKENDS, "broken", opener)
    out = tmp_path / "a.npy"
    out.write_text("old")
    refused(run("sample", plain, "-o", out, "--engine", "broken"), "the network returned NaN")
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_full_disk_is_explained(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(run("sample", plain, "-o", tmp_path / "a.png"), "the disk is full")
    assert list(tmp_path.iterdir()) == []


SLOW = """
import sys, time
import numpy as np
from dpmrt.runtime import backends
from dpmrt.runtime.backends import FunctionBackend, Tensor
from dpmrt.runtime.cli import main

def slow(sample, timestep):
    print("running", flush=True)
    time.sleep(0.2)
    return 0 * sample

def opener(root, network):
    return FunctionBackend(slow, *[[Tensor(s.name, s.dtype, s.shape) for s in specs]
                                   for specs in (network.inputs, network.outputs)])

backends.BACKENDS["slow"] = opener
main(["sample", sys.argv[1], "-o", sys.argv[2], "--engine", "slow", "--steps", "500"])
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a child")
@pytest.mark.parametrize("name", ["a.png", "a.npy"])
def test_ctrl_c_half_way_says_cancelled_and_writes_nothing(plain: Path, tmp_path: Path, name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(plain), str(tmp_path / name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "cancelled"
    assert list(tmp_path.iterdir()) == []


def test_inspect_shows_a_bundle(labelled: Path) -> None:
    shown = run("inspect", labelled).output
    for text in ("class_labels  int64 [batch]", "DDIMScheduler", "3 classes, 3 for no class", "unet/model.onnx  "):
        assert text in shown


def test_inspect_shows_a_folder_without_a_manifest(make_bundle: Make) -> None:
    shown = run("inspect", make_bundle(manifest=False, names={"timestep": "t"})).output
    assert "float32 [batch]  named t" in shown
    assert "inferred" in shown


def test_inspect_shows_a_plan(plain: Path, tmp_path: Path) -> None:
    with load(plain) as pipeline:
        plan = pipeline.plan(4, eta=1.0)
    shown = run("inspect", plan.save(tmp_path / "a.plan")).output
    assert plan.digest()[:16] in shown
    assert "DDIMScheduler" in shown
    assert len([line for line in shown.splitlines() if line.split()[:1] in (["0"], ["1"], ["2"], ["3"])]) == 4
    (tmp_path / "a.plan").write_bytes(b"no plan")
    refused(run("inspect", tmp_path / "a.plan"), "is not a step file")
    refused(run("inspect", tmp_path / "none"), "no bundle folder here")


def test_version_and_help() -> None:
    assert run("--version").output.strip() == f"dpmrt, version {dpmrt.__version__}"
    shown = run("--help").output
    for name in ("sample", "inspect", "export", "verify"):
        assert f"\n  {name} " in shown
    shown = run("sample", "--help").output
    assert "Examples:" in shown
    assert "[default: 0]" in " ".join(shown.split())


def test_a_command_whose_package_is_missing_is_listed_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = importlib.metadata.EntryPoint("brew", "dpmrt.export.cli.no_such_module:command", "dpmrt.commands")
    monkeypatch.setattr(cli, "_entry_points", lambda: {"brew": entry})
    assert "pip install 'dpmrt[export]'" in " ".join(run("--help").output.split())
    for arguments in (["brew"], ["brew", "x", "--force", "-o", "y"]):
        refused(run(*arguments), "`dpmrt brew` needs a package that is not installed", "pip install 'dpmrt[export]'")


def _python(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_the_module_runs_as_the_script_does(plain: Path, tmp_path: Path) -> None:
    done = _python("-m", "dpmrt.runtime", "sample", plain, "-o", tmp_path / "a.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote ")
    done = _python("-m", "dpmrt.runtime", "sample", plain, "-o", tmp_path / "no/a.png")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the folder does not exist\n  got:")


@pytest.mark.skipif(os.name == "nt", reason="no such pipes")
def test_a_reader_that_goes_away_is_no_news(labelled: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "dpmrt.runtime", "inspect", str(labelled)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_sampling_stays_small(plain: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom dpmrt.runtime.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])\n"
    )
    done = _python("-c", code, "sample", plain, "-o", tmp_path / "a.png")
    assert int(done.stdout.split()[-1]) < 150 * 1024


def test_ctrl_c_while_the_command_line_is_imported(tmp_path: Path) -> None:
    """A `click` that is interrupted while it loads, as an impatient user does it."""
    (tmp_path / "click.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    command = [sys.executable, "-m", "dpmrt.runtime", "inspect", "digits"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "cancelled")


@pytest.mark.parametrize("module", ["dpmrt", "dpmrt.runtime"])
def test_modules_that_are_the_command_line(module: str) -> None:
    done = _python("-m", module, "inspect", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: dpmrt inspect")
