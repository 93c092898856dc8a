"""Folder to bundle of Stable Diffusion 1.5's and SDXL's UNets, random weights, fp16: time and peak memory.

Each export is a process of its own, measured from outside; the peer is torch.onnx.export of the same network in half
precision, written with external data, with nothing checked. --only NAME narrows it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import run_process, table

SD15: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
#: config, seconds and gigabytes that an export may take
NETWORKS = {"sd15": (SD15, 90, 4.5), "sdxl": (SDXL, 360, 12.0)}

MAKE = """
import json, sys, torch
from diffusers import DDIMScheduler, UNet2DConditionModel
config = json.loads(sys.argv[1]); config.pop("_class_name")
torch.manual_seed(0); torch.set_default_dtype(torch.float16)
UNet2DConditionModel(**config).save_pretrained(sys.argv[2] + "/unet", max_shard_size="5GB")
DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(sys.argv[2] + "/scheduler")
"""

PEER = """
import sys, torch
from diffusers import UNet2DConditionModel
from dpmrt.export.interfaces import interface_of
model = UNet2DConditionModel.from_pretrained(sys.argv[1] + "/unet", torch_dtype=torch.float16, low_cpu_mem_usage=False)
interface = interface_of({"_class_name": "UNet2DConditionModel", **model.config}).settle()
examples = interface.examples(**interface.sizes(batch=2, height=32, width=40, tokens=7))
class Wrapper(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model.eval()
    def forward(self, *tensors):
        return interface.call(self.model, dict(zip(examples, tensors)))
free = torch.export.Dim.AUTO
axes = tuple({k: free for k, a in enumerate(i.shape) if isinstance(a, str)} for i in interface.inputs)
halves = tuple(t.half() if t.is_floating_point() else t for t in examples.values())
program = torch.onnx.export(Wrapper(), halves, dynamo=True, dynamic_shapes={"tensors": axes}, verbose=False)
program.save(sys.argv[2], external_data=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(NETWORKS))
    parser.add_argument("--no-peer", action="store_true", help="measure dpmrt alone")
    parser.add_argument("--folder", type=Path, help="where the networks are kept, instead of a temporary folder")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, (config, seconds, gigabytes) in NETWORKS.items():
            if options.only not in (None, name):
                continue
            home = (options.folder or Path(scratch)) / name
            if not (home / "unet").is_dir():
                home.mkdir(parents=True)
                run_process([sys.executable, "-c", MAKE, json.dumps(config), str(home)])
            ours = run_process(
                [
                    str(Path(sys.executable).parent / "dpmrt"),
                    *("export", str(home), "-o", str(home / "bundle"), "--precision", "fp16", "--force"),
                ]
            )
            row = [name, f"{ours.seconds:.0f} s", seconds, f"{ours.peak_mb / 1024:.2f} GB", gigabytes]
            if options.no_peer:
                rows.append([*row, "-", "-", "-", "-"])
                continue
            peer = run_process([sys.executable, "-c", PEER, str(home), str(home / "peer.onnx")])
            ratios = [f"{ours.seconds / peer.seconds:.2f}", f"{ours.peak_mb / peer.peak_mb:.2f}"]
            rows.append([*row, f"{peer.seconds:.0f} s", f"{peer.peak_mb / 1024:.2f} GB", *ratios])
    table(
        "Folder to bundle in fp16: traced, written, checked against torch and tried on a trajectory",
        ["network", "time", "bound", "peak", "bound", "torch.onnx", "its peak", "time ratio", "memory ratio"],
        rows,
    )


if __name__ == "__main__":
    main()
