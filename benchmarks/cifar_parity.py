"""One call and a 20-step trajectory of CIFAR-10's DDPM UNet, exported, against torch and diffusers.

The network is google/ddpm-cifar10-32's by its config, with random weights; the peer is the same network traced by
torch.onnx.export alone and run call for call in ONNX Runtime.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import table
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

from dpmrt.export import export_bundle, verify

CONFIG = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
STEPS = 20


class Plain(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.model(sample, timestep, return_dict=False)[0]


def peer_call(model: torch.nn.Module, path: Path) -> float:
    """Return the largest difference of one call of the graph that torch.onnx.export writes by itself."""
    inputs = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0])
    torch.onnx.export(Plain(model), inputs, path, dynamo=True, verbose=False, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    (got,) = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs)})
    with torch.no_grad():
        expected = Plain(model)(*inputs).numpy()
    return float(np.abs(got - expected).max())


def main() -> None:
    torch.manual_seed(0)
    model = UNet2DModel(**CONFIG).eval()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        model.save_pretrained(str(home / "net/unet"))
        for name, scheduler in (("DDPM", DDPMScheduler()), ("DPM-Solver++(2M)", DPMSolverMultistepScheduler())):
            scheduler.save_pretrained(str(home / "net/scheduler"))
            bundle = export_bundle(home / "net", home / "bundle", force=True)
            report = verify(bundle, steps=STEPS, batch=1, write=False, plot=False)
            entry = report.backends[0]
            call = max(c.max_abs for c in entry.calls if c.max_abs is not None)
            relative = max(c.max_relative for c in entry.calls if c.max_relative is not None)
            rows.append(
                [name, f"{call:.1e}", f"{relative:.1e}", "1e-5", f"{entry.drift:.1e}", "1e-4", str(report.passed)]
            )
        rows.append(
            ["peer: torch.onnx alone", f"{peer_call(model, home / 'peer.onnx'):.1e}", "-", "-", "-", "-", "-"]
        )
    table(
        f"CIFAR-10's DDPM UNet, ONNX Runtime against torch: calls at 4 times and 2 batches, {STEPS} steps",
        ["scheduler", "call: largest", "over RMS", "bound", "trajectory", "bound", "passed"],
        rows,
    )


if __name__ == "__main__":
    main()
