"""The reference network: a class-conditional diffusers UNet2DModel, and the schedule that it is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

from dpmrt.errors import BundleError
from dpmrt.export.reference.digits import IMAGE_SIZE, NUM_DIGITS

NULL_CLASS = NUM_DIGITS
NUM_CLASS_EMBEDS = NUM_DIGITS + 1

UNET_CONFIG: Mapping[str, Any] = {
    "sample_size": IMAGE_SIZE,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": (32, 64, 80),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 16,
    "norm_num_groups": 8,
    "act_fn": "silu",
    "num_class_embeds": NUM_CLASS_EMBEDS,
}

NOISE_CONFIG: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}


def build_unet(seed: int = 0, *, by_sigma: bool = False, learned_variance: bool = False) -> UNet2DModel:
    """An untrained reference UNet; the same seed gives the same weights and leaves torch's global state alone.

    `by_sigma`, it is told sigma and divides its answer by it, as networks of the score; with `learned_variance` it
    answers a second channel.
    """
    kind = {"time_embedding_type": "fourier"} if by_sigma else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(**{**UNET_CONFIG, **kind, "out_channels": 2 if learned_variance else 1})


def alphas_cumprod() -> torch.Tensor:
    """The training schedule's cumulative signal power, one float32 value per training timestep."""
    return DDPMScheduler(**NOISE_CONFIG).alphas_cumprod


def sampling_scheduler() -> DPMSolverMultistepScheduler:
    """The scheduler that a checkpoint ships with: DPM-Solver++(2M) on the training schedule."""
    return DPMSolverMultistepScheduler(**NOISE_CONFIG, algorithm_type="dpmsolver++", solver_order=2)


def load_unet(folder: str | Path) -> UNet2DModel:
    """The UNet of a checkpoint folder, in eval mode; weights are read from safetensors only."""
    unet = Path(folder) / "unet"
    weights = unet / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        raise BundleError(
            "this folder holds no trained UNet",
            got=f"no file {weights}",
            expected="unet/config.json and unet/diffusion_pytorch_model.safetensors",
            fix=f"dpmrt train-reference unet -o {folder}",
        )
    # diffusers would take the disk's low-memory route by way of accelerate, which need not be installed.
    model = UNet2DModel.from_pretrained(
        str(unet), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
    )
    return model.eval()


def load_scheduler(folder: str | Path) -> DPMSolverMultistepScheduler:
    """The sampling scheduler of a checkpoint folder, as diffusers reads it."""
    path = Path(folder) / "scheduler"
    if not (path / "scheduler_config.json").is_file():
        raise BundleError(
            "this folder holds no scheduler",
            got=f"no file {path / 'scheduler_config.json'}",
            expected="scheduler/scheduler_config.json as diffusers saves it",
            fix=f"dpmrt train-reference unet -o {folder}",
        )
    return DPMSolverMultistepScheduler.from_pretrained(str(path), local_files_only=True)
