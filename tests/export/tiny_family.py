"""Networks of a few thousand weights of each class and variant that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    I2VGenXLUNet,
    UNet1DModel,
    UNet2DConditionModel,
    UNet2DModel,
    UNet3DConditionModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)
from onnxscript import ir

from dpmrt.export.onnx_files import session_of
from dpmrt.export.sources import Source
from dpmrt.export.tracing import trace

_COMMON: dict[str, Any] = {"layers_per_block": 1, "block_out_channels": (8, 8), "norm_num_groups": 4}
_CROSS: dict[str, Any] = {
    **_COMMON,
    "sample_size": 8,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_SDXL: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 32,
}


def _pictures(**options: Any) -> Any:
    return UNet2DModel(
        **{
            **_COMMON,
            "sample_size": 8,
            "in_channels": 2,
            "out_channels": 2,
            "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            **options,
        }
    )


def _latents(**options: Any) -> Any:
    return UNet2DConditionModel(**{**_CROSS, **options})


def _small_latents(**options: Any) -> Any:
    one_level = {"block_out_channels": (8,), "mid_block_type": None}
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    return _latents(**one_level, **blocks, **options)


def _sequences() -> Any:
    return UNet1DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        extra_in_channels=64,
        time_embedding_type="fourier",
        use_timestep_embedding=False,
        block_out_channels=(32, 32),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock1DNoSkip", "AttnDownBlock1D"),
        up_block_types=("AttnUpBlock1D", "UpBlock1DNoSkip"),
    )


def _planner() -> Any:
    # As the value-guided planners of Janner et al. 2022 are configured.
    return UNet1DModel(
        sample_size=32,
        in_channels=6,
        out_channels=6,
        time_embedding_type="positional",
        use_timestep_embedding=True,
        flip_sin_to_cos=False,
        freq_shift=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        act_fn="mish",
        out_block_type="OutConv1DBlock",
        mid_block_type="MidResTemporalBlock1D",
        down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
        up_block_types=("UpResnetBlock1D",),
    )


# One level is enough for videos, whose graphs take long to trace.
_VIDEO: dict[str, Any] = {
    "layers_per_block": 1,
    "block_out_channels": (8,),
    "norm_num_groups": 4,
    "sample_size": 8,
    "cross_attention_dim": 12,
}


def _film() -> Any:
    return UNet3DConditionModel(
        **_VIDEO,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock3D",),
        up_block_types=("CrossAttnUpBlock3D",),
    )


def _motion() -> Any:
    return UNetMotionModel(
        **_VIDEO,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        motion_max_seq_length=12,
        down_block_types=("CrossAttnDownBlockMotion",),
        up_block_types=("CrossAttnUpBlockMotion",),
    )


def _stable_video() -> Any:
    return UNetSpatioTemporalConditionModel(
        sample_size=8,
        num_frames=6,
        in_channels=8,
        out_channels=4,
        layers_per_block=1,
        # With its fixed 32 groups, fewer channels would normalise the time away.
        block_out_channels=(64,),
        cross_attention_dim=12,
        num_attention_heads=(2,),
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=12,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",),
        up_block_types=("CrossAttnUpBlockSpatioTemporal",),
    )


def _picture_to_video() -> Any:
    return I2VGenXLUNet(
        **_VIDEO,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock3D",),
        up_block_types=("CrossAttnUpBlock3D",),
    )


FAMILY: dict[str, Callable[[], Any]] = {
    "pictures": _pictures,
    "labels, learned variance": lambda: _pictures(num_class_embeds=11, out_channels=4),
    "text": _latents,
    "sdxl": lambda: _small_latents(**_SDXL),
    "inpainting, distilled, labels": lambda: _small_latents(in_channels=9, time_cond_proj_dim=5, num_class_embeds=11),
    "noise level, learned variance": lambda: _small_latents(class_embed_type="timestep", out_channels=8),
    "class embeds": lambda: _small_latents(class_embed_type="projection", projection_class_embeddings_input_dim=6),
    "sequences": _sequences,
    "planner": _planner,
    "film": _film,
    "motion": _motion,
    "stable video": _stable_video,
    "picture to video": _picture_to_video,
}


#: axes that are closed by default, and traced open
OPENED: dict[str, dict[str, str]] = {
    "pictures": {"height": "free", "width": "free"},
    "labels, learned variance": {"height": "free", "width": "free"},
    "sequences": {"length": "free"},
    "planner": {"length": "free"},
    "film": {"height": "free", "width": "free"},
}


@dataclass(frozen=True)
class Traced:
    """A network with its graph, and that graph opened by ONNX Runtime."""

    source: Source
    graph: ir.Model
    session: Any

    @staticmethod
    def of(source: Source, folder: Path) -> Traced:
        graph = trace(source.skeleton, source.interface, source.weights)
        ir.save(graph, folder / "model.onnx")
        return Traced(source, graph, session_of(folder / "model.onnx"))


def tiny(name: str, seed: int = 0) -> Any:
    """Return the network of this name with random weights, normalisation and biases among them."""
    torch.manual_seed(seed)
    model = FAMILY[name]().eval().requires_grad_(False)
    for parameter in model.parameters():
        # Layers that start at zero would hide what comes before them.
        if parameter.dim() < 2 or not parameter.any():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model
