"""Classifier-free guidance as a part of the graph: the scale is an input, and the batch is doubled inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from dpmrt.engines import NEGATIVE
from dpmrt.errors import ExportError
from dpmrt.export.interfaces import Draw, Input, Interface

Forward = Callable[[Any, Mapping[str, torch.Tensor]], torch.Tensor]

_SCALE = "guidance_scale"


def fold_guidance(interface: Interface, null_label: int | None) -> tuple[Interface, Forward]:
    """Return the interface and the forward of the guided network (Ho and Salimans 2022, equation 6).

    Class labels are guided away from `null_label`; a condition that says what is wanted gets a counterpart, with
    `negative_` before its name, that says what is not; any other, as SDXL's sizes, is the same for both.
    """
    labelled = interface.input("class_labels") is not None and null_label is not None
    opposed = [entry for entry in interface.inputs if entry.negated]
    if not labelled and not opposed:
        raise ExportError(
            "there is nothing that guidance could move away from",
            got=", ".join(entry.role for entry in interface.inputs),
            expected="class labels with a null class, or a condition such as encoder_hidden_states",
            fix="leave out --fold-guidance, or say the null class in training.json",
        )
    negatives = (
        dataclasses.replace(entry, role=f"{NEGATIVE}{entry.role}", path=(f"{NEGATIVE}{entry.role}",), negated=False)
        for entry in opposed
    )
    scale = Input(_SCALE, ("batch",), draw=Draw("uniform", 0.0, 8.0))
    guided = dataclasses.replace(interface, inputs=(*interface.inputs, *negatives, scale))

    def forward(model: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        both = {}
        for entry in interface.inputs:
            tensor = other = tensors[entry.role]
            if not entry.shape:
                both[entry.role] = tensor
                continue
            if entry.role == "class_labels" and labelled:
                other = torch.full_like(tensor, null_label or 0)
            elif entry.negated:
                other = tensors[f"{NEGATIVE}{entry.role}"]
            both[entry.role] = torch.cat([tensor, other])
        # Two slices, as torch.onnx makes a sequence of a chunk of an open axis, which engines cannot read.
        batch = tensors["sample"].shape[0]
        result = interface.call(model, both)
        return _combine(result[:batch], result[batch:], tensors[_SCALE], interface)

    return guided, forward


def _combine(wanted: torch.Tensor, null: torch.Tensor, scale: torch.Tensor, interface: Interface) -> torch.Tensor:
    weight = scale.reshape(-1, *[1] * (wanted.dim() - 1))
    axis = interface.channel_axis
    taken = next(entry for entry in interface.inputs if entry.role == "sample").shape[axis]
    given = interface.output[axis]
    if isinstance(taken, int) and isinstance(given, int) and given == 2 * taken:
        # What is learned of the variance is that of the wanted half, as guided-diffusion has it.
        mean, variance = wanted.split(taken, dim=axis)
        guided = null.narrow(axis, 0, taken)
        return torch.cat([guided + weight * (mean - guided), variance], dim=axis)
    return null + weight * (wanted - null)
