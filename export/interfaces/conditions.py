"""What diffusers' conditional UNets are told beside the sample and the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.errors import ExportError
from dpmrt.export.interfaces.interface import Draw, Input

Config = Mapping[str, Any]

# The largest picture that SDXL's sizes and crops usually speak of.
_LARGEST_SIDE = 1024.0
# How wide the pooled text is in both SDXL's base and its refiner, which takes one id less.
_POOLED = 1280


def labels_of(config: Config) -> tuple[int, tuple[Input, ...]]:
    """Return how many integer class labels the network knows, and the input for whatever labels it takes."""
    kind = config.get("class_embed_type")
    width = config.get("projection_class_embeddings_input_dim")
    if kind is None and config.get("num_class_embeds") is not None:
        labels = int(config["num_class_embeds"])
        return labels, (Input("class_labels", ("batch",), "int64"),)
    if kind is None:
        return 0, ()
    if kind == "timestep":
        return 0, (Input("noise_level", ("batch",), path=("class_labels",), draw=Draw("uniform", 0.0, 999.0)),)
    if kind in ("projection", "simple_projection") and width:
        return 0, (Input("class_embeds", ("batch", int(width)), path=("class_labels",), negated=True),)
    raise ExportError(
        "the network takes class labels of a kind that cannot be exported",
        got=f"class_embed_type = {kind!r} in config.json",
        expected="null, 'timestep', 'projection' or 'simple_projection'",
        fix="describe the network in a spec: dpmrt export PACKAGE.MODULE:FACTORY --spec FILE",
    )


def token_width(config: Config) -> int:
    """Return how wide one token of encoder_hidden_states is."""
    width = config.get("encoder_hid_dim") or config.get("cross_attention_dim")
    widths = list(width) if isinstance(width, (list, tuple)) else [width]
    if isinstance(widths[0], int) and widths.count(widths[0]) == len(widths):
        return widths[0]
    raise ExportError(
        "the width of encoder_hidden_states is unclear",
        got=f"cross_attention_dim = {width!r} in config.json",
        expected="one integer, or the same integer for every block",
    )


def added_conditions(config: Config) -> tuple[Input, ...]:
    """Return the inputs within `added_cond_kwargs`."""
    kind, projected = config.get("addition_embed_type"), config.get("encoder_hid_dim_type")
    if projected not in (None, "text_proj"):
        raise _refused("encoder_hid_dim_type", projected, "null or 'text_proj'")
    if kind is None or kind == "text":
        return ()
    if kind == "text_time":
        per_id = int(config["addition_time_embed_dim"])
        # SDXL's six numbers and pooled text are embedded together; the refiner's five give another width.
        total = int(config["projection_class_embeddings_input_dim"])
        pooled, ids = _split(total, per_id)
        return (
            Input("text_embeds", ("batch", pooled), path=("added_cond_kwargs", "text_embeds"), negated=True),
            Input(
                "time_ids",
                ("batch", ids),
                path=("added_cond_kwargs", "time_ids"),
                draw=Draw("uniform", 0.0, _LARGEST_SIDE),
            ),
        )
    if kind == "image":
        width = int(config.get("encoder_hid_dim") or config["cross_attention_dim"])
        return (Input("image_embeds", ("batch", width), path=("added_cond_kwargs", "image_embeds"), negated=True),)
    raise _refused("addition_embed_type", kind, "null, 'text', 'text_time' or 'image'")


def time_condition(config: Config) -> tuple[Input, ...]:
    """Return the embedded guidance scale of distilled networks such as LCM's, if the network takes one."""
    width = config.get("time_cond_proj_dim")
    return () if width is None else (Input("timestep_cond", ("batch", int(width))),)


def _split(total: int, per_id: int) -> tuple[int, int]:
    """Divide the width of SDXL's embedding into the pooled text's and the number of ids: 6, or 5 in the refiner."""
    usual = [ids for ids in (6, 5) if total - ids * per_id == _POOLED]
    ids = usual[0] if usual else 6
    if total > ids * per_id:
        return total - ids * per_id, ids
    raise _refused("projection_class_embeddings_input_dim", total, f"more than 6 times {per_id}")


def _refused(key: str, value: object, expected: str) -> ExportError:
    return ExportError(
        "the network takes conditions that cannot be exported",
        got=f"{key} = {value!r} in config.json",
        expected=f"{key} = {expected}",
        fix="describe the network in a spec: dpmrt export PACKAGE.MODULE:FACTORY --spec FILE",
    )
