"""`dpmrt doctor`: what is here, what is missing, and built engines that do or do not suit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from tiny_bundles import Make, write_bundle

from dpmrt.engines.built import EngineTensor, Library, Request, Target, engines_folder, write_engine
from dpmrt.engines.built import Machine as Here
from dpmrt.runtime import cli, open_bundle
from dpmrt.runtime.backends import plain_engines
from dpmrt.runtime.doctor import examine as examine_module
from dpmrt.runtime.doctor import schema
from dpmrt.runtime.doctor.built import examine_built
from dpmrt.runtime.doctor.child import ask, run_python
from dpmrt.runtime.doctor.needs import NEEDS, PLUGIN, missing
from dpmrt.runtime.doctor.schema import DoctorReport

FAKES = {
    "tensorrt": "raise ImportError('libnvinfer.so.10: cannot open shared object file')\n",
    "cupy": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
}
BLOCKED = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(name, name=name)


sys.meta_path.insert(0, Blocked())
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def doctor(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command where a folder of fakes comes before everything that is installed, children included."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "dpmrt.runtime", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DPMRT_ENGINES", raising=False)


def test_every_engine_has_its_needs_written_down() -> None:
    assert set(plain_engines()) - {"auto"} <= set(NEEDS)


def test_what_is_here_is_shown_and_sampling_works() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for text in ("machine\n", "  Python ", "libraries\n", "CPUExecutionProvider", "which ships with dpmrt"):
        assert text in result.stdout
    assert ["onnxruntime", "runs"] in [line.split() for line in result.stdout.splitlines()]


def test_json(plain: Path) -> None:
    result = run("doctor", plain, "--json")
    report = msgspec.json.decode(result.stdout, type=DoctorReport)
    assert (report.format, report.version, report.bundle, report.healthy) == ("dpmrt-doctor", 1, str(plain), True)
    assert report.system.memory_bytes
    assert {library.name for library in report.libraries} >= {"numpy", "cupy", "tensorrt", "tensorrt_rtx", "torch"}


def test_a_bundle_that_is_not_there_or_damaged_cannot_be_run(make_bundle: Make) -> None:
    result = run("doctor", "no-such-bundle")
    assert result.exit_code == 1
    assert "no bundle here" in result.stdout
    assert "nothing can sample here" in result.stderr
    root = make_bundle()
    (root / "unet/model.onnx").write_bytes(b"short")
    result = run("doctor", root)
    assert result.exit_code == 1
    assert "unet/model.onnx is truncated" in result.stdout
    assert "not tried, as the bundle cannot be opened" in result.stdout


def test_broken_libraries_end_a_child_and_not_the_doctor(tmp_path: Path, plain: Path) -> None:
    for name, body in FAKES.items():
        (tmp_path / "fakes" / name).mkdir(parents=True)
        (tmp_path / "fakes" / name / "__init__.py").write_text(body)
    done = doctor(plain, folder=tmp_path / "fakes")
    assert done.returncode == 0, done.stderr
    assert "cannot be loaded: ImportError: libnvinfer.so.10: cannot open shared object file" in done.stdout
    assert "cannot be loaded: the process was ended by SIGSEGV" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_without_onnxruntime_nothing_samples_and_the_line_for_pip_is_shown(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes" / "sitecustomize.py").write_text(BLOCKED.format(names={"onnxruntime"}))
    done = doctor(plain, folder=tmp_path / "fakes")
    assert done.returncode == 1
    assert ["onnxruntime", "not", "installed"] in [line.split() for line in done.stdout.splitlines()]
    assert "lacks onnxruntime: pip install 'dpmrt[cpu]'" in done.stdout


def test_a_broken_numpy_is_told(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "fakes" / "numpy").mkdir(parents=True)
    (tmp_path / "fakes" / "numpy" / "__init__.py").write_text("import os\nos.abort()\n")
    done = doctor(plain, "--json", folder=tmp_path / "fakes")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["bundle_problem"].startswith("NumPy cannot be loaded: the process was ended by SIGABRT")


def test_a_child_that_hangs_or_says_nothing() -> None:
    assert run_python(["-c", "import time; time.sleep(60)"], seconds=0.3) == "no answer after 0.3 seconds"
    assert run_python(["-c", "raise SystemExit(3)"]) == "the process ended with code 3: nothing was printed"
    assert run_python(["-c", "print('dpmrt-answer:{')"]) == "an answer that is not JSON"
    assert str(ask("no such probe")).startswith("KeyError")


def lib(name: str, **fields: Any) -> schema.Library:
    return schema.Library(name, **{"version": "1.0", **fields})


def test_what_an_engine_lacks() -> None:
    bare = {name: schema.Library(name, None) for name in ("onnxruntime", "cupy", "tensorrt", "tensorrt_rtx")}
    assert missing(NEEDS["tensorrt"], bare, "no driver") == {
        "tensorrt or tensorrt_rtx": "pip install 'dpmrt[tensorrt]', or pip install 'dpmrt[rtx]'",
        "cupy": "pip install 'dpmrt[tensorrt]', or pip install 'dpmrt[rtx]'",
        "an NVIDIA GPU": "there is none, or its driver cannot be used (see GPU)",
    }
    rtx = {**bare, "tensorrt_rtx": lib("tensorrt_rtx"), "cupy": lib("cupy")}
    assert missing(NEEDS["tensorrt-rtx"], rtx, None) == {}
    broken = {**rtx, "tensorrt_rtx": lib("tensorrt_rtx", problem="no libcudart")}
    assert missing(NEEDS["tensorrt-rtx"], broken, None) == {
        "tensorrt_rtx, which is installed and cannot be loaded": "pip install 'dpmrt[rtx]'"
    }
    plugin = {**rtx, "onnxruntime": lib("onnxruntime"), PLUGIN: schema.Library(PLUGIN, None)}
    assert missing(NEEDS["ort-tensorrt-rtx"], plugin, None) == {PLUGIN: f"pip install {PLUGIN}"}
    on_cpu = {**rtx, "onnxruntime": lib("onnxruntime", facts={"providers": "CPUExecutionProvider"})}
    assert missing(NEEDS["ort-cuda"], on_cpu, None) == {
        "onnxruntime with CUDAExecutionProvider": "pip uninstall onnxruntime, then pip install 'dpmrt[cuda]'"
    }


L4 = Here(Library("tensorrt_rtx", "1.7.1.116"), "NVIDIA L4", "8.9", "linux-x86_64")


def build(bundle: Path, *, plan: bytes = b"a plan" * 99, **fields: Any) -> str:
    record = open_bundle(bundle).manifest.files["unet/model.onnx"]
    settled: dict[str, Any] = {
        "network": "unet",
        "source": {"unet/model.onnx": record.sha256},
        "precision": "fp32",
        "library": L4.library,
        "target": Target("device", "linux-x86_64", "NVIDIA L4", "8.9"),
    }
    folder = engines_folder(bundle)
    folder.mkdir(exist_ok=True)
    (folder / ".scratch").write_bytes(plan)
    tensor = EngineTensor("sample", "float32", ("batch", 1, 8, 8))
    request = Request(**{**settled, **fields})
    manifest, _ = write_engine(folder, request, folder / ".scratch", inputs=(tensor,), outputs=(tensor,), facts={})
    return manifest.key


def examined(bundle: Path, machine: Here = L4) -> dict[str, schema.BuiltEngine]:
    found = examine_built(bundle, open_bundle(bundle).manifest, [machine], "tiny")
    return {engine.key: engine for engine in found}


def test_an_engine_that_fits(make_bundle: Make) -> None:
    root = make_bundle()
    key = build(root)
    engine = examined(root)[key]
    assert engine.fits
    assert (engine.rebuild, engine.library) == (None, "TensorRT-RTX 1.7.1.116")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"library": Library("tensorrt_rtx", "1.6.0")}, ("library.version", "1.6.0", "1.7.1.116")),
        ({"target": Target("device", "linux-x86_64", "NVIDIA H100", "9.0")}, ("compute_capability", "9.0", "8.9")),
        ({"target": Target("device", "linux-x86_64", "NVIDIA L40", "8.9")}, ("gpu", "NVIDIA L40", "NVIDIA L4")),
        ({"source": {"unet/model.onnx": "b" * 64}}, ("source unet/model.onnx", "b" * 12 + "…", None)),
    ],
    ids=["version", "capability", "gpu", "graph"],
)
def test_an_engine_that_does_not_fit_says_in_which_field(
    make_bundle: Make, fields: dict[str, Any], told: tuple[str, str, str | None]
) -> None:
    root = make_bundle()
    key = build(root, **fields)
    engine = examined(root)[key]
    assert not engine.fits
    found = {(misfit.field, misfit.engine, misfit.here if told[2] else None) for misfit in engine.misfits}
    assert told in found
    assert engine.rebuild == "dpmrt build tiny"
    assert all("BUNDLE" not in misfit.fix for misfit in engine.misfits)


def test_building_anew_is_no_advice_where_there_is_no_gpu(make_bundle: Make) -> None:
    root = make_bundle()
    key = build(root, target=Target("portable", "linux-x86_64"))
    engine = examined(root, Here(L4.library, None, None, "linux-x86_64"))[key]
    assert [misfit.field for misfit in engine.misfits] == ["gpu"]
    assert engine.rebuild is None


def test_damaged_engines_are_shown(make_bundle: Make) -> None:
    root = make_bundle()
    folder = engines_folder(root)
    short, altered = (build(root, precision=precision) for precision in ("fp16", "bf16"))
    gone = build(root, library=Library("tensorrt_rtx", "1.5.0"))
    (folder / f"{short}.plan").write_bytes(b"a plan")
    (folder / f"{altered}.plan").write_bytes(b"A PLAN" * 99)
    (folder / f"{gone}.plan").unlink()
    (folder / ("0" * 16 + ".json")).write_text("{")
    (folder / ("1" * 16 + ".json")).write_text('{"format": "other"}')
    found = examined(root)
    for key, text in {
        short: "is truncated; 6 bytes",
        altered: "was altered; SHA-256",
        gone: "the plan of a built engine is missing",
        "0" * 16: "is not JSON",
        "1" * 16: "`format` is not a built engine's; 'other'",
    }.items():
        problem = found[key].problem
        assert problem is not None
        assert text in problem
        assert (found[key].fits, found[key].rebuild) == (False, "dpmrt build tiny")


def test_the_command_shows_built_engines(make_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_bundle()
    fits, not_here = build(root), build(root, target=Target("device", "linux-x86_64", "NVIDIA H100", "9.0"))
    (engines_folder(root) / ("0" * 16 + ".json")).write_text("{")
    monkeypatch.setattr(examine_module, "_built", lambda name, *rest: list(examined(root).values()))
    result = run("doctor", root)
    assert result.exit_code == 0, result.output
    assert f"  {fits}  fits  (unet, TensorRT-RTX 1.7.1.116, device: NVIDIA L4 (8.9), linux-x86_64)\n" in result.stdout
    assert f"  {not_here}  does not fit" in result.stdout
    assert "    compute_capability: built for 9.0, here 8.9\n" in result.stdout
    assert f"  {'0' * 16}  damaged\n" in result.stdout
    assert "    build it anew: dpmrt build tiny\n" in result.stdout


def test_the_whole_way_on_this_machine(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "bundle")
    key = build(root)
    result = run("doctor", root, "--json")
    (engine,) = msgspec.json.decode(result.stdout, type=DoctorReport).built
    assert engine.key == key
    # Only an L4 with this very version has nothing to say against it.
    assert engine.problem is None
    assert engine.fits or {misfit.field for misfit in engine.misfits} & {"library", "library.version", "gpu"}


def test_the_doctor_imports_nothing_heavy(plain: Path) -> None:
    code = (
        "import sys\nfrom dpmrt.runtime.doctor.examine import examine\n"
        f"assert examine({str(plain)!r}).healthy\n"
        "print(sorted({'onnxruntime', 'torch', 'cupy', 'tensorrt', 'tensorrt_rtx', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_built_engines_that_cannot_be_looked_at_are_not_said_to_be_none(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise PermissionError("engines: permission denied")

    monkeypatch.setattr(examine_module, "_built", fail)
    result = run("doctor", plain)
    assert result.exit_code == 0
    assert "  cannot be looked at: PermissionError: engines: permission denied\n" in result.stdout
    assert "none; TensorRT's" not in result.stdout
