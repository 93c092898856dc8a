"""The editing commands' care: bad requests, Ctrl-C, and nothing heavy loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from editing_files import write_pixels
from PIL import Image

from dpmrt.runtime import cli


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path, mask: Path) -> Path:
    write_pixels(tmp_path / "wide.png", np.zeros((8, 9, 1)))
    write_pixels(tmp_path / "black.png", np.zeros((8, 8, 1)))
    write_pixels(tmp_path / "white.png", np.full((8, 8, 1), 255))
    Image.new("RGBA", (8, 8), (1, 2, 3, 100)).save(tmp_path / "clear.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    np.save(tmp_path / "far.npy", np.full((1, 1, 8, 8), 200.0))
    np.save(tmp_path / "nan.npy", np.full((1, 1, 8, 8), np.nan))
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRONG: dict[str, tuple[str, list[object], list[str]]] = {
    "no picture": ("edit", ["--image", "none.png", "-o", "a.png"], ["the image cannot be read", "none.png"]),
    "kind of picture": ("edit", ["--image", "a.jpg", "-o", "a.png"], ["an image is of an unknown kind", "PNG"]),
    "size": ("edit", ["--image", "wide.png", "-o", "a.png"], ["wrong size", "9 x 8 pixels", "8 x 8", "resize it"]),
    "broken": ("edit", ["--image", "broken.png", "-o", "a.png"], ["broken.png is no PNG"]),
    "transparent": ("edit", ["--image", "clear.png", "-o", "a.png"], ["is transparent in places", "background"]),
    "range": ("edit", ["--image", "far.npy", "-o", "a.png"], ["the image is out of range", "-1 to 1"]),
    "NaN": ("edit", ["--image", "nan.npy", "-o", "a.png"], ["the image holds NaN"]),
    "strength": ("edit", ["--image", "in.png", "--strength", 0, "-o", "a.png"], ["strength is out of range"]),
    "no step": ("edit", ["--image", "in.png", "--strength", 0.1, "-o", "a.png"], ["strength leaves no step"]),
    "repaint alone": ("edit", ["--image", "in.png", "--repaint", "1,2", "-o", "a.png"], ["--repaint without --mask"]),
    "repaint text": (
        "edit",
        ["--image", "in.png", "--mask", "mask.png", "--repaint", "1", "-o", "a.png"],
        ["--repaint is not understood", "JUMP,TIMES"],
    ),
    "repaint solver": (
        "edit",
        ["--image", "in.png", "--mask", "mask.png", "--repaint", "1,2", "--solver", "unipc", "-o", "a.png"],
        ["RePaint needs a solver that keeps nothing", "--solver"],
    ),
    "empty mask": (
        "edit",
        ["--image", "in.png", "--mask", "black.png", "-o", "a.png"],
        ["the mask is empty", "1 where to paint"],
    ),
    "full mask": ("edit", ["--image", "in.png", "--mask", "white.png", "-o", "a.png"], ["the mask keeps nothing"]),
    "mask size": ("edit", ["--image", "in.png", "--mask", "wide.png", "-o", "a.png"], ["wrong size"]),
    "over the picture": ("edit", ["--image", "in.png", "-o", "in.png"], ["--out and --image in.png are one file"]),
    "frames over out": ("edit", ["--image", "in.png", "-o", "a.png", "--frames", "a.png"], ["are one file"]),
    "kind": ("edit", ["--image", "in.png", "-o", "a.jpg"], ["unknown kind", "-o a.png"]),
    "moving": ("edit", ["--image", "in.png", "-o", "a.apng"], ["these samples do not move", "-o a.png"]),
    "strength as option": (
        "edit",
        ["--image", "in.png", "-o", "a.png", "--option", "strength=1"],
        ["use --strength"],
    ),
    "noise as picture": ("invert", ["--image", "in.png", "-o", "a.png"], ["noise is written as numbers", "-o a.npy"]),
    "noisy solver": (
        "invert",
        ["--image", "in.png", "-o", "a.npy", "--solver", "ddpm"],
        ["a solver that adds noise cannot invert", "--solver"],
    ),
    "grid of nothing": ("invert", ["--image", "in.png", "-o", "a.npy", "--grid", 2], ["--grid and --scale"]),
    "seeds": ("interpolate", ["--seeds", "1;2", "-o", "a.png"], ["--seeds is no list of seeds", "as 1,2"]),
    "one seed": ("interpolate", ["--seeds", "1", "-o", "a.png"], ["nothing to interpolate between"]),
    "one frame": ("interpolate", ["--seeds", "1,2", "-f", 1, "-o", "a.png"], ["frames is out of range"]),
    "fps": ("interpolate", ["--seeds", "1,2", "-o", "a.apng", "--fps", 0], ["fps is out of range"]),
    "frames kind": ("sample", ["-o", "a.png", "--frames", "f.gif"], ["the file of --frames is of an unknown kind"]),
    "frames every": ("sample", ["-o", "a.png", "--frames", "f.png", "--frames-every", 0], ["every is out of range"]),
    "frame noise": ("sample", ["-o", "a.png", "--frame-noise", "1"], ["--frame-noise is for samples with frames"]),
    "smooth text": ("sample", ["-o", "a.png", "--smooth", "much"], ["--smooth is not understood"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_requests_are_refused_and_leave_nothing(plain: Path, workplace: Path, name: str) -> None:
    command, arguments, texts = WRONG[name]
    before = {path: path.read_bytes() for path in workplace.iterdir()}
    result = run(command, plain, *arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    for text in texts:
        assert text in result.stderr
    assert {path: path.read_bytes() for path in workplace.iterdir()} == before


HEAVY = {"torch", "onnx", "onnxscript", "scipy", "diffusers", "sklearn", "matplotlib", "safetensors"}
COMMANDS: dict[str, list[str]] = {
    "edit": ["--image", "in.png", "-o", "a.png"],
    "edit with a mask": ["--image", "in.png", "--mask", "mask.png", "--repaint", "1,2", "-o", "b.png"],
    "invert": ["--image", "in.png", "-o", "c.npy", "--reconstruct", "c.png", "--iterations", "2"],
    "interpolate": ["--seeds", "1,2", "-o", "d.apng"],
    "sample": ["-o", "e.png", "--frames", "f.apng"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_run_without_torch(plain: Path, workplace: Path, name: str) -> None:
    code = (
        "import sys\nfrom dpmrt.runtime.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", code, name.split()[0], str(plain), *COMMANDS[name]]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    assert not HEAVY & set(finished.stdout.splitlines()[-1].split())


SLOW = """
import sys, time
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
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a child")
@pytest.mark.parametrize("command", ["edit", "invert", "interpolate"])
def test_ctrl_c_writes_nothing(plain: Path, workplace: Path, command: str) -> None:
    before = set(workplace.iterdir())
    arguments = ["--seeds", "1,2"] if command == "interpolate" else ["--image", "in.png"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, command, plain, *arguments, "-o", "a.npy", "--engine", "slow", "--steps", "500"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, "cancelled")
    assert set(workplace.iterdir()) == before
