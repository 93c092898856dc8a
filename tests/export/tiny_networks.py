"""Networks of a few thousand weights, saved as diffusers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel, UNet2DModel

TINY: dict[str, Any] = {
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


def labelled_unet(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return UNet2DModel(
        in_channels=1,
        out_channels=1,
        num_class_embeds=11,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **TINY,
    )


def conditional_unet(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        cross_attention_dim=12,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **TINY,
    )


def save_checkpoint(model: Any, folder: Path) -> Path:
    model.save_pretrained(str(folder / "unet"), safe_serialization=True)
    save_scheduler(folder)
    training = {"num_classes": 10, "null_class": 10, "data_range": [-1.0, 1.0], "kind": "unet"}
    (folder / "training.json").write_text(json.dumps(training))
    return folder


def save_scheduler(folder: Path) -> Path:
    DPMSolverMultistepScheduler().save_pretrained(str(folder / "scheduler"))
    return folder / "scheduler/scheduler_config.json"


def listing(folder: Path) -> list[str]:
    """Return every file under a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
