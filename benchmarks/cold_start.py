"""From process start to a PNG on disk: `dpmrt sample` beside torch + diffusers, same network, same seed."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from common import ProcessCost, run_process, table

from dpmrt.engines import shipped_bundle

CHECKPOINT = shipped_bundle("digits").parent / "checkpoints" / "digits-unet"

PEER = """
import sys, torch
from diffusers import DPMSolverMultistepScheduler, UNet2DModel
from PIL import Image
source, out, label, scale = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
unet = UNet2DModel.from_pretrained(source, subfolder="unet", local_files_only=True).eval()
scheduler = DPMSolverMultistepScheduler.from_pretrained(source, subfolder="scheduler", local_files_only=True)
scheduler.set_timesteps(20)
x = torch.randn((1, 1, 16, 16), generator=torch.Generator().manual_seed(0))
labels = torch.tensor([label, 10])
with torch.inference_mode():
    for t in scheduler.timesteps:
        cond, null = unet(torch.cat([x, x]), t, class_labels=labels).sample.chunk(2)
        x = scheduler.step(null + scale * (cond - null), t, x).prev_sample
image = ((x[0, 0].clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
Image.fromarray(image).save(out)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    dpmrt = str(Path(sys.executable).with_name("dpmrt"))
    with tempfile.TemporaryDirectory() as folder:
        mine_png, peer_png = f"{folder}/a.png", f"{folder}/b.png"
        mine = [
            dpmrt,
            "sample",
            "digits",
            "--label",
            "3",
            "--steps",
            "20",
            "--guidance",
            "2",
            "--seed",
            "0",
            "-o",
            mine_png,
        ]
        peer = [sys.executable, "-c", PEER, str(CHECKPOINT), peer_png, "3", "2"]
        costs: dict[str, list[ProcessCost]] = {"dpmrt sample": [], "torch + diffusers": []}
        for run in range(options.runs + 1):
            for name, command in zip(costs, (mine, peer)):
                cost = run_process(command)
                if run:
                    costs[name].append(cost)
    rows = []
    for name, measured in costs.items():
        seconds = [cost.seconds for cost in measured]
        rows.append(
            [
                name,
                f"{statistics.median(seconds):.2f}",
                f"{max(seconds):.2f}",
                f"{max(cost.peak_mb for cost in measured):.0f}",
            ]
        )
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(*costs.values()))
    rows.append(["ratio", f"{ratio:.3f}", "", f"{float(rows[0][3]) / float(rows[1][3]):.3f}"])
    table(
        f"Process start to PNG, one guided digit, 20 steps, {options.runs} runs in turn",
        ["", "seconds (median)", "worst", "peak MB"],
        rows,
    )


if __name__ == "__main__":
    main()
