"""A manifest for a folder that optimum or diffusers wrote: worked out from the graph and the configs."""

from __future__ import annotations

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

    `names` says how the graph calls a tensor, role by role, where it is none of the usual names.
    """
    header = read_graph_header(root / UNET)
    roles = _roles(names or {})
    inputs = tuple(_spec(tensor, roles.get(tensor.name), "input") for tensor in header.inputs)
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
    try:
        prediction: Any = prediction_from_diffusers(scheduler_config)
    except OptionError as error:
        raise ManifestError(f"{SCHEDULER}: {error.what}", got=error.got, expected=error.expected) from None
    config = UNET_CONFIG if (root / UNET_CONFIG).is_file() else None
    return Manifest(
        format="dpmrt-bundle",
        version=FORMAT_VERSION,
        name=root.resolve().name,
        unet=Network(path=UNET, inputs=inputs, outputs=(_spec(output, "out_sample", "output"),), config=config),
        scheduler=SCHEDULER,
        prediction=prediction,
        files={},
        provenance={"manifest": "inferred: the folder has no dpmrt.json"},
    )


def _roles(names: Mapping[str, str]) -> dict[str, str]:
    roles = {alias: role for role, aliases in NAMES.items() for alias in aliases}
    for role, name in names.items():
        if role not in NAMES:
            raise OptionError("names has an unknown role", got=repr(role), expected=", ".join(NAMES))
        roles = {alias: known for alias, known in roles.items() if known != role}
        roles[name] = role
    return roles


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
        expected="a tensor for " + ", ".join(NAMES),
        fix=f"say what it is for: from Python, load(folder, names={{ROLE: {tensor.name!r}}})",
    )
