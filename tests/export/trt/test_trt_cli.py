"""`dpmrt build` as it is called, and that it needs neither torch nor onnx."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from dpmrt.export.cli.bars import builder_bars
from dpmrt.export.tensorrt.messages import Finished, Started, Stepped

DPMRT = str(Path(sys.executable).parent / "dpmrt")


def dpmrt(*arguments: object, code: int = 0) -> tuple[str, str]:
    done = subprocess.run([DPMRT, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_it_builds_and_then_finds(tiny: Path) -> None:
    output, errors = dpmrt("build", tiny)
    assert output.startswith(f"Built {tiny}/engines/")
    assert output.rstrip().endswith("GB peak.")
    assert errors == f"building: no engine of the unet is in {tiny}/engines\n"
    again, errors = dpmrt("build", tiny)
    assert again.startswith(f"Found {tiny}/engines/")
    assert errors == ""


def test_the_flags_reach_the_request(tiny: Path) -> None:
    output, errors = dpmrt(
        *("build", tiny, "--dry-run", "--engines", tiny / "mine", "--target", "sm89,sm120", "--noTF32"),
        *("--minShapes=sample:1x1x8x8", "--optShapes=sample:4x1x8x8", "--maxShapes=sample:6x1x8x8"),
        *("--builderOptimizationLevel=4", "--memPoolSize=workspace:64,tacticSharedMem:48K", "--weightStreaming"),
    )
    lines = {" ".join(line.split()) for line in output.splitlines()}
    assert {
        "network unet, fp32",
        "library TensorRT-RTX 1.7.1.116",
        "target portable: 8.9, 12.0, linux-x86_64",
        "profile 0 sample 1x1x8x8:4x1x8x8:6x1x8x8",
        "profile 0 timestep 1:4:6",
        "flags optimization level 4, workspace 67,108,864 bytes, tacticSharedMem 49,152 bytes, no TF32, "
        "weight streaming",
        f"folder {tiny}/mine",
        "Nothing was built.",
    } <= lines
    assert errors == ""
    assert not (tiny / "mine").exists()


def test_a_dry_run_knows_what_is_there(tiny: Path) -> None:
    dpmrt("build", tiny)
    assert "which is there. Nothing was built." in dpmrt("build", tiny, "--dry-run")[0]
    assert "building again, as --force asks" in dpmrt("build", tiny, "--dry-run", "--force")[0]


def test_inspect_lists_what_was_built(tiny: Path) -> None:
    dpmrt("build", tiny)
    output, _ = dpmrt("inspect", tiny)
    assert "TensorRT engines\n" in output
    assert "unet, TensorRT-RTX 1.7.1.116, portable: 8.0 or newer, linux-x86_64" in output
    assert "profile 0: sample 1x1x8x8:2x1x8x8:8x1x8x8, timestep 1:2:8, class_labels 1:2:8" in output
    (plan,) = (tiny / "engines").glob("*.plan")
    plan.write_bytes(plan.read_bytes()[:-1])
    assert f"cannot be used: {plan.name} is truncated" in dpmrt("inspect", tiny)[0]
    plan.with_suffix(".json").write_text("{")
    assert "cannot be used" in dpmrt("inspect", tiny)[0]


def test_progress_is_drawn_when_asked_for(tiny: Path) -> None:
    _, errors = dpmrt("build", tiny, "--progress")
    assert "Parsing the graph\nBuilding engine\n" in errors
    assert errors.endswith("Writing the plan\n")
    assert "Building engine" not in dpmrt("build", tiny, "--force")[1]


def test_bars_follow_the_phases() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with builder_bars(console) as tell:
        tell(Started("Building engine", None, 6))
        tell(Started("Timing tactics", "Building engine", 3))
        tell(Stepped("Timing tactics", 2))
        tell(Stepped("a phase that never began", 1))
        tell(Finished("a phase that never began"))
        time.sleep(0.3)
        tell(Finished("Timing tactics"))
        tell(Finished("Building engine"))
    drawn = stream.getvalue()
    assert "Building engine" in drawn
    assert "  Timing tactics" in drawn
    assert "2/3" in drawn


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--refit"], "error: TensorRT-RTX 1.7.1.116 cannot honour --refit"),
        (["--optShapes=sample:1x2x8x8"], "error: --optShapes of `sample` does not fit the network"),
        (["--target", "sm75"], "error: --target names no compute capability"),
        (["--target", "device"], "error: there is no GPU to build for"),
        (["--flavour", "tensorrt"], "error: TensorRT is not installed"),
        (["--network", "classifier"], "error: the bundle has no network `classifier`"),
        (["--memPoolSize=workspace"], "error: --memPoolSize is no size"),
    ],
    ids=str,
)
def test_refusals(tiny: Path, flags: list[str], said: str) -> None:
    output, errors = dpmrt("build", tiny, *flags, code=1)
    assert errors.startswith(said)
    assert output == ""
    assert not (tiny / "engines").exists()


def test_no_bundle(tmp_path: Path) -> None:
    assert "no bundle folder here" in dpmrt("build", tmp_path / "none", code=1)[1]


def test_help_has_examples() -> None:
    output, _ = dpmrt("build", "--help")
    assert "dpmrt build bundles/sd15 --target sm89,sm120" in output
    for flag in (
        "--minShapes",
        "--memPoolSize",
        "--timingCacheFile",
        "--stripWeights",
        "--hardwareCompatibilityLevel",
    ):
        assert flag in output


TORCH_FREE = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NAMES}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
"""


def test_neither_torch_nor_onnx_is_needed(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the command and in the process that builds, every import of a package of exporting fails."""
    missing = {
        "torch",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "diffusers",
        "polygraphy",
        "safetensors",
        "ml_dtypes",
        "scipy",
    }
    site = tmp_path / "site/sitecustomize.py"
    site.parent.mkdir()
    site.write_text(TORCH_FREE.replace("{NAMES}", repr(missing)))
    monkeypatch.setenv("PYTHONPATH", str(site.parent))
    trial = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in trial.stderr
    assert dpmrt("build", tiny)[0].startswith("Built ")
    code = "import sys\nfrom dpmrt.export import build_engine\nprint(build_engine(sys.argv[1]).found)"
    done = subprocess.run([sys.executable, "-c", code, str(tiny)], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_without_tensorrt(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site/sitecustomize.py"
    site.parent.mkdir()
    site.write_text(TORCH_FREE.replace("{NAMES}", repr({"tensorrt", "tensorrt_rtx"})))
    monkeypatch.setenv("PYTHONPATH", str(site.parent))
    _, errors = dpmrt("build", tiny, code=1)
    assert errors.startswith("error: TensorRT or TensorRT-RTX is not installed")
    assert "pip install 'dpmrt[rtx]'" in errors
