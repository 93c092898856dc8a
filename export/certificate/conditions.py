"""What the network is told over a whole trajectory, made up alike for torch and for the bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.engines import NEGATIVE, Manifest
from dpmrt.errors import OptionError
from dpmrt.export.interfaces import Interface
from dpmrt.export.torch_sampler import EXTRA_CHANNELS, Condition

_LABELS, _TEXT = "class_labels", "encoder_hidden_states"
# What a text or picture encoder gives also for an empty prompt.
_ENCODED = (_TEXT, "text_embeds", "image_embeds", "image_embeddings", "class_embeds")
_FOLDED_SCALE = 7.5
#: how many seeds there are
SEEDS = 2**64


def guidance_scale(manifest: Manifest, guidance: float | None) -> float | None:
    """Return the scale that applies, None for no guidance; refuse one that the bundle cannot honour."""
    if guidance is None:
        usual = manifest.guidance.scale if manifest.guidance else None
        return _FOLDED_SCALE if usual is None and manifest.unet.folded_guidance else usual
    if not math.isfinite(guidance):
        raise OptionError(
            "guidance is not a scale", got=guidance, expected="a finite number", fix="leave the option out"
        )
    if manifest.guidance is None and not opposed_roles(manifest):
        raise OptionError(
            "the bundle has no guidance", got=f"guidance = {guidance}", expected="none", fix="leave the option out"
        )
    return guidance


def opposed_roles(manifest: Manifest) -> tuple[str, ...]:
    """Return the conditions that have something for guidance to move away from."""
    roles = [spec.role for spec in manifest.unet.inputs]
    if manifest.unet.folded_guidance:
        return tuple(role.removeprefix(NEGATIVE) for role in roles if role.startswith(NEGATIVE))
    return tuple(role for role in roles if role in _ENCODED)


def make_condition(
    manifest: Manifest,
    interface: Interface,
    *,
    batch: int,
    seed: int,
    guidance: float | None,
    sizes: Mapping[str, int],
) -> Condition:
    """Make up conditions: labels in turn, and for all else what the interface draws."""
    drawn, other = (
        {role: tensor.numpy() for role, tensor in interface.examples(seed=s, **{**sizes, "batch": batch}).items()}
        for s in (seed, (seed + 1) % SEEDS)
    )
    axis = interface.channel_axis
    own = interface.state_shape(**sizes)[axis - 1]
    wanted = {role: array for role, array in drawn.items() if role not in ("sample", "timestep")}
    if drawn["sample"].shape[axis] > own:
        wanted[EXTRA_CHANNELS] = np.split(drawn["sample"], [own], axis)[1]
    null = {**wanted, **{role: other[role] for role in opposed_roles(manifest)}}
    if interface.labels:
        setup = manifest.guidance
        wanted[_LABELS] = np.arange(batch) % (setup.classes if setup else interface.labels)
        null[_LABELS] = np.full(batch, setup.null_label) if setup else wanted[_LABELS]
    return Condition(wanted, null, guidance)


def request(manifest: Manifest, condition: Condition) -> dict[str, Any]:
    """Return the condition as arguments of `Pipeline.sample`."""
    wanted = dict(condition.wanted)
    negative = {role: condition.null[role] for role in opposed_roles(manifest) if role != _LABELS}
    if condition.guidance is None:
        negative = {}
    arguments = {
        "guidance": condition.guidance,
        "label": wanted.pop(_LABELS, None),
        "encoder_hidden_states": wanted.pop(_TEXT, None),
        "negative_hidden_states": negative.pop(_TEXT, None),
        "conditions": wanted or None,
        "negative": negative or None,
    }
    return {name: value for name, value in arguments.items() if value is not None}
