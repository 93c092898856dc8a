"""A manifest for a folder that optimum or diffusers wrote: worked out from the graph and the configs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from dpmrt.engines import FORMAT_VERSION, Manifest, Network, TensorSpec
from dpmrt.engines.schema import DType
from dpmrt.errors import BundleError, ManifestError, OptionError
from dpmrt.runtime.backends.base import Tensor
from dpmrt.runtime.onnx_header import read_graph_header
from dpmrt.solvers_np import prediction_from_diffusers

UNET = "unet/model.onnx"
UNET_CONFIG = "unet/config.json"
SCHEDULER = "scheduler/scheduler_config.json"

#: networks whose samples are (batch, frames, channels, height, width)
_FRAMES_FIRST = ("UNetSpatioTemporalConditionModel",)
#: a tensor of such a name is a condition of this role, unless it is one of the names below
_ROLE = re.compile("[a-z][a-z0-9_]*")
#: what exporters call the tensors; the first of each is optimum's name
NAMES: dict[str, tuple[str, ...]] = {
    "sample": ("sample", "latent_sample", "latents", "latent", "x", "x_t", "input"),
    "timestep": ("timestep", "timesteps", "t", "time"),
    "encoder_hidden_states": ("encoder_hidden_states", "context", "prompt_embeds", "text_embeddings"),
    "class_labels": ("class_labels", "class_label", "labels", "label", "y"),
    "out_sample": ("out_sample", "output", "noise_pred", "latent_out", "eps"),
}


def infer_manifest(
    root: Path, scheduler_config: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> Manifest:
    """Work out the manifest of a folder with `unet/model.onnx` and `scheduler/scheduler_config.json`.

    An input that is none of the usual ones is a condition, by its own name. `names` says how the graph calls a
    tensor, role by role, where it is none of the usual names.
    """
    header = read_graph_header(root / UNET)
    roles = _roles(names or {})
    inputs = tuple(_spec(tensor, _input_role(tensor, roles), "input") for tensor in header.inputs)
    only = header.outputs[0] if len(header.outputs) == 1 else None
    output = only or next((tensor for tensor in header.outputs if roles.get(tensor.name) == "out_sample"), None)
    if output is None:
        raise _unnamed("output", header.outputs[0])
    for role in ("sample", "timestep"):
        if [spec.role for spec in inputs].count(role) != 1:
            raise BundleError(
                f"the graph needs one input for `{role}`",
                got=", ".join(str(tensor) for tensor in header.inputs),
                expected=" or ".join(NAMES[role]),
                fix=f"say which it is: from Python, load(folder, names={{{role!r}: '...'}})",
            )
    played = [spec.role for spec in inputs]
    if twice := [spec for spec in inputs if played.count(spec.role) > 1]:
        raise BundleError(
            f"the graph has two inputs for `{twice[0].role}`",
            got=", ".join(spec.name for spec in twice if spec.role == twice[0].role),
            expected="each input once",
            fix=f"say what the other is for: from Python, load(folder, names={{ROLE: {twice[-1].name!r}}})",
        )
    try:
        prediction: Any = prediction_from_diffusers(scheduler_config)
    except OptionError as error:
        raise ManifestError(f"{SCHEDULER}: {error.what}", got=error.got, expected=error.expected) from None
    config = UNET_CONFIG if (root / UNET_CONFIG).is_file() else None
    facts = _read_config(root / UNET_CONFIG)
    axis = 2 if facts.get("_class_name") in _FRAMES_FIRST else 1
    inputs = tuple(_fix_channels(spec, axis, facts.get("in_channels")) for spec in inputs)
    out = _fix_channels(_spec(output, "out_sample", "output"), axis, facts.get("out_channels"))
    return Manifest(
        format="dpmrt-bundle",
        version=FORMAT_VERSION,
        name=root.resolve().name,
        unet=Network(path=UNET, inputs=inputs, outputs=(out,), config=config, channel_axis=axis),
        scheduler=SCHEDULER,
        prediction=prediction,
        files={},
        provenance={"manifest": "inferred: the folder has no dpmrt.json"},
    )


def _roles(names: Mapping[str, str]) -> dict[str, str]:
    roles = {alias: role for role, aliases in NAMES.items() for alias in aliases}
    for role, name in names.items():
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise OptionError(
                "names has an unknown role",
                got=repr(role),
                expected=", ".join(NAMES) + ", or a condition's, in small letters",
            )
        roles = {alias: known for alias, known in roles.items() if known != role}
        roles[name] = role
    return roles


def _input_role(tensor: Tensor, roles: Mapping[str, str]) -> str | None:
    own = tensor.name if _ROLE.fullmatch(tensor.name) else None
    return roles.get(tensor.name, own)


def _read_config(config: Path) -> dict[str, Any]:
    """Return what the network's config says; a damaged one says nothing here."""
    try:
        values = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _fix_channels(spec: TensorSpec, axis: int, channels: object) -> TensorSpec:
    """Return a sample with the channels of the config where optimum left them open in the graph."""
    free = spec.role in ("sample", "out_sample") and len(spec.shape) > axis and isinstance(spec.shape[axis], str)
    if not free or type(channels) is not int or channels < 1:
        return spec
    return TensorSpec(spec.role, spec.name, spec.dtype, (*spec.shape[:axis], channels, *spec.shape[axis + 1 :]))


def _spec(tensor: Tensor, role: str | None, kind: str) -> TensorSpec:
    if role is None or (role == "out_sample") != (kind == "output"):
        raise _unnamed(kind, tensor)
    if tensor.dtype not in get_args(DType):
        raise BundleError(
            f"the graph's {kind} `{tensor.name}` has a type that bundles do not know",
            got=tensor.dtype,
            expected=", ".join(get_args(DType)),
        )
    return TensorSpec(role, tensor.name, cast(DType, tensor.dtype), tensor.shape)


def _unnamed(kind: str, tensor: Tensor) -> BundleError:
    return BundleError(
        f"the graph has an {kind} that dpmrt cannot place",
        got=tensor,
        expected=f"a tensor for {', '.join(NAMES)}"
        + (", or a condition, named in small letters" * (kind == "input")),
        fix=f"say what it is for: from Python, load(folder, names={{ROLE: {tensor.name!r}}})",
    )
