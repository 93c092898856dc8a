"""Building TensorRT engines: seconds, the largest memory of all its processes, the plan's size, and finding it again.

Networks: the shipped digits, CIFAR-10's UNet and Stable Diffusion 1.5's UNet in fp16 with a dynamic batch of 1 to 8,
both with random weights. --folder keeps what was exported; exporting is not part of what is measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from cifar_parity import CONFIG as CIFAR
from common import run_process, table
from large_export import MAKE, SD15

DPMRT = str(Path(sys.executable).parent / "dpmrt")
LATENTS = "sample:{0}x4x64x64,encoder_hidden_states:{0}x77x768"
PIXELS = "sample:{0}x3x32x32"


def _shapes(text: str, low: int, usual: int, high: int) -> list[str]:
    return [f"--{name}Shapes={text.format(size)}" for name, size in (("min", low), ("opt", usual), ("max", high))]


#: shapes, and the seconds and gigabytes that a build may take
NETWORKS: dict[str, tuple[list[str], float | None, float | None]] = {
    "digits": ([], None, None),
    "cifar": (_shapes(PIXELS, 1, 4, 16), None, None),
    "sd15": (_shapes(LATENTS, 1, 2, 8), 60, 7),
}

MAKE_CIFAR = """
import json, sys, torch
from diffusers import DDPMScheduler, UNet2DModel
torch.manual_seed(0)
UNet2DModel(**json.loads(sys.argv[1])).save_pretrained(sys.argv[2] + "/unet")
DDPMScheduler().save_pretrained(sys.argv[2] + "/scheduler")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(NETWORKS))
    parser.add_argument("--folder", type=Path, help="where exported networks are kept, instead of a temporary folder")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, (shapes, seconds, gigabytes) in NETWORKS.items():
            if options.only not in (None, name):
                continue
            bundle = _bundle(name, options.folder or Path(scratch))
            engines = Path(scratch) / f"{name}-engines"
            command = [DPMRT, "build", bundle, "--engines", str(engines), *shapes]
            # The first call hashes the graph, as every call for a new bundle does; its cost is part of the build.
            took, peak = _measured(command)
            found = min(_measured(command)[0] for _ in range(3))
            (plan,) = engines.glob("*.plan")
            rows.append(
                [
                    *(name, f"{took:.1f} s", seconds or "-", f"{peak / 1e9:.2f} GB", gigabytes or "-"),
                    *(f"{plan.stat().st_size / 1e6:,.0f} MB", f"{found:.2f} s", 1),
                ]
            )
    columns = ["network", "build", "bound", "peak", "bound", "plan", "found again", "bound"]
    table("dpmrt build, portable, with the start of Python", columns, rows)


def _bundle(name: str, folder: Path) -> str:
    """Return the bundle of a network, exported before if it is not there."""
    if name == "digits":
        return name
    home = folder / name
    if not (home / "bundle/dpmrt.json").is_file():
        home.mkdir(parents=True, exist_ok=True)
        if name == "sd15":
            run_process([sys.executable, "-c", MAKE, json.dumps(SD15), str(home)])
        else:
            run_process([sys.executable, "-c", MAKE_CIFAR, json.dumps(CIFAR), str(home)])
        precision = ["--precision", "fp16"] if name == "sd15" else []
        run_process([DPMRT, "export", str(home), "-o", str(home / "bundle"), "--force", *precision])
    return str(home / "bundle")


def _measured(command: list[str]) -> tuple[float, int]:
    """Return the seconds of a command, and the most memory that it and its children held together."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak, over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, _held(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    over.set()
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{output}")
    return seconds, peak


def _held(pid: int) -> int:
    """Return the resident memory of a process and all below it."""
    try:
        fields: dict[str, Any] = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, ValueError):
        return 0
    return int(fields.get("VmRSS", "0 kB").split()[0]) * 1024 + sum(_held(int(child)) for child in below)


if __name__ == "__main__":
    main()
