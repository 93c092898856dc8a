"""The interfaces of diffusers' UNets, read from their configs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dpmrt.engines import Axis
from dpmrt.errors import ExportError
from dpmrt.export.interfaces.conditions import added_conditions, labels_of, time_condition, token_width
from dpmrt.export.interfaces.interface import Draw, FreeAxis, Input, Interface

Config = Mapping[str, Any]

BATCH = FreeAxis(Axis(opt=1))
#: as many as CLIP's text encoder gives
TOKENS = FreeAxis(Axis(opt=77))
_DIFFUSERS: dict[str, Any] = {"arguments": {"return_dict": False}, "pick": (0,)}
_POOLED = "the network pools its picture to 32 by 32"
_TIME = Input("timestep", ("batch",))


def unet2d(config: Config) -> Interface:
    """UNet2DModel: pictures, with integer class labels or without."""
    channels_in, channels_out = _channels(config)
    labels, inputs = labels_of(config)
    return Interface(
        inputs=(Input("sample", ("batch", channels_in, "height", "width")), _TIME, *inputs),
        output=("batch", channels_out, "height", "width"),
        axes={"batch": BATCH, **_picture(config)},
        labels=labels,
        **_DIFFUSERS,
    )


def unet2d_condition(config: Config) -> Interface:
    """UNet2DConditionModel: latents of any size and tokens, and what SDXL, LCM and their kin add."""
    channels_in, channels_out = _channels(config)
    labels, inputs = labels_of(config)
    tokens = Input("encoder_hidden_states", ("batch", "tokens", token_width(config)), negated=True)
    return Interface(
        inputs=(
            Input("sample", ("batch", channels_in, "height", "width")),
            _TIME,
            tokens,
            *inputs,
            *added_conditions(config),
            *time_condition(config),
        ),
        output=("batch", channels_out, "height", "width"),
        axes={"batch": BATCH, "tokens": TOKENS, **_picture(config, open=True)},
        labels=labels,
        **_DIFFUSERS,
    )


def unet1d(config: Config) -> Interface:
    """UNet1DModel: sequences (batch, features, length)."""
    channels_in = int(config["in_channels"]) + int(config.get("extra_in_channels") or 0)
    if config["down_block_types"][0] == "DownBlock1DNoSkip":
        # This block adds the embedded time to the channels of the sample.
        time = _time_width(config)
        channels_in -= time
        if channels_in < 1:
            raise ExportError(
                "the network has no channels left for a sample",
                got=f"{channels_in + time} for the sample and its time (in_channels and extra_in_channels), "
                f"{time} of them the time's",
                expected=f"at least {time + 1}, as DownBlock1DNoSkip puts both together",
                fix=f"set extra_in_channels to {time} in the config that the network is made from",
            )
    length = config.get("sample_size")
    if not isinstance(length, int) or length < 1:
        raise _no_size(config)
    blocks = config["down_block_types"]
    halvings = len([b for b in blocks if b != "DownBlock1DNoSkip" or not config.get("downsample_each_block")])
    return Interface(
        inputs=(Input("sample", ("batch", channels_in, "length")), _TIME),
        output=("batch", int(config["out_channels"]), "length"),
        axes={"batch": BATCH, "length": _side(length, max(halvings, len(blocks)))},
        **_DIFFUSERS,
    )


def unet3d_condition(config: Config) -> Interface:
    """UNet3DConditionModel: videos (batch, channels, frames, height, width)."""
    channels_in, channels_out = _channels(config)
    return Interface(
        inputs=(
            Input("sample", ("batch", channels_in, "frames", "height", "width")),
            _TIME,
            Input("encoder_hidden_states", ("batch", "tokens", token_width(config)), negated=True),
            *time_condition(config),
        ),
        output=("batch", channels_out, "frames", "height", "width"),
        axes={"batch": BATCH, "tokens": TOKENS, "frames": _frames(16), **_picture(config)},
        **_DIFFUSERS,
    )


def unet_motion(config: Config) -> Interface:
    """UNetMotionModel (AnimateDiff): videos; the text is one for all frames."""
    channels_in, channels_out = _channels(config)
    longest = int(config.get("motion_max_seq_length") or 32)
    return Interface(
        inputs=(
            Input("sample", ("batch", channels_in, "frames", "height", "width")),
            _TIME,
            Input("encoder_hidden_states", ("batch", "tokens", token_width(config)), repeated=2, negated=True),
            *added_conditions(config),
            *time_condition(config),
        ),
        output=("batch", channels_out, "frames", "height", "width"),
        axes={"batch": BATCH, "tokens": TOKENS, "frames": _frames(16, longest), **_picture(config)},
        **_DIFFUSERS,
    )


def unet_spatio_temporal(config: Config) -> Interface:
    """UNetSpatioTemporalConditionModel (Stable Video Diffusion): (batch, frames, channels, height, width)."""
    channels_in, channels_out = _channels(config)
    ids = int(config["projection_class_embeddings_input_dim"]) // int(config["addition_time_embed_dim"])
    return Interface(
        inputs=(
            Input("sample", ("batch", "frames", channels_in, "height", "width")),
            _TIME,
            Input("encoder_hidden_states", ("batch", "tokens", token_width(config)), negated=True),
            Input("added_time_ids", ("batch", ids), draw=Draw("uniform", 0.0, 127.0)),
        ),
        output=("batch", "frames", channels_out, "height", "width"),
        axes={
            "batch": BATCH,
            "tokens": FreeAxis(Axis(opt=1)),
            "frames": _frames(int(config.get("num_frames") or 25)),
            **_picture(config),
        },
        channel_axis=2,
        **_DIFFUSERS,
    )


def i2vgen_xl(config: Config) -> Interface:
    """I2VGenXLUNet: videos from a picture, its embedding and a text.

    Height and width are one size, as the network pools the picture to 32 by 32, and tracing settles from where.
    """
    channels_in, channels_out = _channels(config)
    width = token_width(config)
    video = ("batch", channels_in, "frames", "height", "width")
    return Interface(
        inputs=(
            Input("sample", video),
            _TIME,
            Input("fps", ("batch",), draw=Draw("uniform", 1.0, 30.0)),
            Input("image_latents", video),
            Input("image_embeddings", ("batch", width), negated=True),
            Input("encoder_hidden_states", ("batch", "tokens", width), negated=True),
        ),
        output=("batch", channels_out, "frames", "height", "width"),
        axes={
            "batch": BATCH,
            "tokens": TOKENS,
            "frames": _frames(16),
            **{side: dataclasses.replace(axis, closed=_POOLED) for side, axis in _picture(config).items()},
        },
        **_DIFFUSERS,
    )


#: the classes of diffusers that can be exported
INTERFACES: dict[str, Callable[[Config], Interface]] = {
    "UNet2DModel": unet2d,
    "UNet2DConditionModel": unet2d_condition,
    "UNet1DModel": unet1d,
    "UNet3DConditionModel": unet3d_condition,
    "UNetMotionModel": unet_motion,
    "UNetSpatioTemporalConditionModel": unet_spatio_temporal,
    "I2VGenXLUNet": i2vgen_xl,
}


def interface_of(config: Config) -> Interface:
    """Return the interface of the network that a config of diffusers describes."""
    return INTERFACES[config["_class_name"]](config)


def _time_width(config: Config) -> int:
    """Return how wide UNet1DModel's embedded time is."""
    width = int(config["block_out_channels"][0])
    if config.get("use_timestep_embedding") or config.get("time_embedding_type") == "positional":
        return width
    return int(config.get("time_embedding_dim") or 2 * width)


def _channels(config: Config) -> tuple[int, int]:
    taken, given = int(config["in_channels"]), int(config["out_channels"])
    if given > taken and given != 2 * taken:
        raise ExportError(
            "the network's output is no sample",
            got=f"in_channels {taken}, out_channels {given}",
            expected="as many channels out as in, fewer where the others are a condition, or twice as many where "
            "the variance is learned",
        )
    return taken, given


def _picture(config: Config, *, open: bool = False) -> dict[str, FreeAxis]:
    size = config.get("sample_size")
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        size = (size, size)
    if not isinstance(size, (list, tuple)) or [isinstance(side, int) and side > 0 for side in size] != [True, True]:
        raise _no_size(config)
    halvings = len(config["down_block_types"]) - 1
    return {"height": _side(size[0], halvings, open), "width": _side(size[1], halvings, open)}


def _side(size: int, halvings: int, open: bool = False) -> FreeAxis:
    # A network may be made for a size that its halvings do not divide; then it is taken at its word.
    multiple = 2**halvings if size % 2**halvings == 0 else 1
    return FreeAxis(Axis(opt=size, min=multiple, multiple=multiple), open)


def _frames(usual: int, most: int | None = None) -> FreeAxis:
    return FreeAxis(Axis(opt=min(usual, most or usual), max=most))


def _no_size(config: Config) -> ExportError:
    return ExportError(
        "the network does not say how large its samples are",
        got=f"sample_size = {config.get('sample_size')!r} in config.json",
        expected="an integer or [height, width]",
        fix="set `sample_size` in the source's config.json",
    )
