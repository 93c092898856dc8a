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
    channels = _channels(root / UNET_CONFIG)
    inputs = tuple(_fix_channels(spec, channels.get("in_channels")) for spec in inputs)
    out = _fix_channels(_spec(output, "out_sample", "output"), channels.get("out_channels"))
    return Manifest(
        format="dpmrt-bundle",
        version=FORMAT_VERSION,
        name=root.resolve().name,
        unet=Network(path=UNET, inputs=inputs, outputs=(out,), config=config),
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


def _channels(config: Path) -> dict[str, int]:
    """Return the numbers of channels that the network's config names, which optimum leaves free in the graph."""
    try:
        values = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    known = ((key, values.get(key)) for key in ("in_channels", "out_channels")) if isinstance(values, dict) else ()
    return {key: value for key, value in known if type(value) is int and value > 0}


def _fix_channels(spec: TensorSpec, channels: int | None) -> TensorSpec:
    free = spec.role in ("sample", "out_sample") and len(spec.shape) > 1 and isinstance(spec.shape[1], str)
    if not free or channels is None:
        return spec
    return TensorSpec(spec.role, spec.name, spec.dtype, (spec.shape[0], channels, *spec.shape[2:]))


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
