"""What a diffusers UNet takes and gives, derived from its config once; tracing and checks follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dpmrt.engines import TensorSpec
from dpmrt.errors import ExportError

EXAMPLE_TOKENS = 7
EXAMPLE_LAST_TIME = 999.0

_UNSUPPORTED = {
    "class_embed_type": "class labels other than integers",
    "addition_embed_type": "extra conditions (`added_cond_kwargs`)",
    "encoder_hid_dim_type": "a projected or image condition",
    "time_cond_proj_dim": "a guidance embedding (`timestep_cond`)",
}


@dataclass(frozen=True)
class Signature:
    """The tensors of a network; `labels` is how many class labels it knows, 0 when it takes none."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: int

    def examples(self, batch: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
        """Return inputs to trace or to compare with; the times are fractional."""
        generator = torch.Generator().manual_seed(seed)
        free = {"batch": batch, "tokens": EXAMPLE_TOKENS}
        tensors = {}
        for spec in self.inputs:
            shape = [free[axis] if isinstance(axis, str) else axis for axis in spec.shape]
            if spec.role == "timestep":
                tensors[spec.name] = EXAMPLE_LAST_TIME * torch.rand(shape, generator=generator)
            elif spec.role == "class_labels":
                tensors[spec.name] = torch.arange(self.labels - batch, self.labels) % self.labels
            else:
                tensors[spec.name] = torch.randn(shape, generator=generator)
        return tensors

    def dynamic_shapes(self) -> dict[str, dict[int, Any]]:
        """Return the free axes as torch.export names them."""
        axes = {axis for spec in self.inputs for axis in spec.shape if isinstance(axis, str)}
        dims = {axis: torch.export.Dim(axis) for axis in sorted(axes)}
        return {
            spec.name: {index: dims[axis] for index, axis in enumerate(spec.shape) if isinstance(axis, str)}
            for spec in self.inputs
        }


def signature_of(config: Mapping[str, Any]) -> Signature:
    """Return the tensors of the UNet2DModel or UNet2DConditionModel that `config` describes."""
    for key, meaning in _UNSUPPORTED.items():
        if config.get(key) is not None:
            raise ExportError(
                f"the network takes {meaning}",
                got=f"{key} = {config[key]!r} in config.json",
                expected=f"{key} = null",
                fix="export a network that is conditioned by integer class labels or encoder_hidden_states alone",
            )
    height, width = _image_size(config)
    channels_in, channels_out = int(config["in_channels"]), int(config["out_channels"])
    if channels_out not in (channels_in, 2 * channels_in):
        raise ExportError(
            "the network's output is no sample",
            got=f"in_channels {channels_in}, out_channels {channels_out}",
            expected="as many channels out as in, or twice as many where the variance is learned",
            fix="inpainting and other networks with extra input channels cannot be exported yet",
        )
    inputs = [
        TensorSpec("sample", "sample", "float32", ("batch", channels_in, height, width)),
        TensorSpec("timestep", "timestep", "float32", ("batch",)),
    ]
    if config["_class_name"] == "UNet2DConditionModel":
        width_of_token = _token_width(config)
        inputs.append(
            TensorSpec(
                "encoder_hidden_states", "encoder_hidden_states", "float32", ("batch", "tokens", width_of_token)
            )
        )
    labels = int(config.get("num_class_embeds") or 0)
    if labels:
        inputs.append(TensorSpec("class_labels", "class_labels", "int64", ("batch",)))
    output = TensorSpec("out_sample", "out_sample", "float32", ("batch", channels_out, height, width))
    return Signature(tuple(inputs), (output,), labels)


def _image_size(config: Mapping[str, Any]) -> tuple[int, int]:
    size = config.get("sample_size")
    if isinstance(size, int) and size > 0:
        return size, size
    if isinstance(size, (list, tuple)) and [isinstance(side, int) and side > 0 for side in size] == [True, True]:
        return size[0], size[1]
    raise ExportError(
        "the network does not say how large its samples are",
        got=f"sample_size = {size!r} in config.json",
        expected="an integer or [height, width]",
        fix="set `sample_size` in the source's config.json",
    )


def _token_width(config: Mapping[str, Any]) -> int:
    width = config.get("encoder_hid_dim") or config.get("cross_attention_dim")
    widths = list(width) if isinstance(width, (list, tuple)) else [width]
    if isinstance(widths[0], int) and widths.count(widths[0]) == len(widths):
        return widths[0]
    raise ExportError(
        "the width of encoder_hidden_states is unclear",
        got=f"cross_attention_dim = {width!r} in config.json",
        expected="one integer, or the same integer for every block",
    )
