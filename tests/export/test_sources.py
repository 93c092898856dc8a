"""What `load_source` takes, and the text of what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_networks import labelled_unet

from dpmrt.errors import ExportError, OptionError
from dpmrt.export.sources import load_source, source_of_model

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def change_config(folder: Path, **values: object) -> None:
    path = folder / "unet/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def test_checkpoint(pristine: Path) -> None:
    source = load_source(pristine)
    assert source.kind == "UNet2DModel"
    assert [spec.role for spec in source.interface.inputs] == ["sample", "timestep", "class_labels"]
    assert source.interface.labels == 11
    assert source.scheduler == pristine / "scheduler/scheduler_config.json"
    assert source.training is not None
    assert source.training.null_class == 10
    assert source.parameters == sum(tensor.numel() for tensor in labelled_unet().parameters())
    assert not source.model.training


@pytest.mark.parametrize(("path", "subfolder"), [("unet", None), (".", "unet")])
def test_unet_folder_and_subfolder(pristine: Path, path: str, subfolder: str | None) -> None:
    assert load_source(pristine / path, subfolder).weights_sha256 == load_source(pristine).weights_sha256


def test_weights_are_those_of_the_file(pristine: Path) -> None:
    loaded = load_source(pristine).model.state_dict()
    for name, tensor in load_file(pristine / WEIGHTS).items():
        assert torch.equal(loaded[name], tensor), name


def test_shards(conditional: Path) -> None:
    assert len(list((conditional / "unet").glob("*.safetensors"))) > 1
    source = load_source(conditional)
    assert source.kind == "UNet2DConditionModel"
    assert [spec.shape for spec in source.interface.inputs] == [
        ("batch", 4, "height", "width"),
        ("batch",),
        ("batch", "tokens", 12),
    ]


def test_model_in_memory_has_the_hash_of_its_file(pristine: Path) -> None:
    model = labelled_unet()
    source = source_of_model(model)
    assert source.weights_sha256 == load_source(pristine).weights_sha256
    assert model.training or source.model is not model


def test_half_precision_weights_are_widened(checkpoint: Path) -> None:
    change_weights(checkpoint, lambda tensors: tensors.update({k: v.half() for k, v in tensors.items()}))
    assert {tensor.dtype for tensor in load_source(checkpoint).model.parameters()} == {torch.float32}


def test_former_attention_names(checkpoint: Path, pristine: Path) -> None:
    former = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            for new, old in former.items():
                if new in name:
                    tensors[name.replace(new, old)] = tensors.pop(name)

    change_weights(checkpoint, rename)
    loaded, expected = load_source(checkpoint).model.state_dict(), load_source(pristine).model.state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_random_state_is_left_alone(pristine: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    load_source(pristine)
    assert torch.equal(torch.rand(1), expected)


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.bin")


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


DEFECTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "not a folder": (shutil.rmtree, "no model folder here(.|\n)*checkpoint"),
    "no config": (lambda f: (f / "unet/config.json").unlink(), r"config\.json is missing(.|\n)*training\.json"),
    "config not JSON": (lambda f: (f / "unet/config.json").write_text("{"), r"config\.json is not JSON"),
    "config a list": (lambda f: (f / "unet/config.json").write_text("[]"), r"config\.json is no JSON object"),
    "other model": (
        lambda f: change_config(f, _class_name="AutoencoderKL"),
        "cannot be exported yet(.|\n)*'AutoencoderKL'(.|\n)*UNet2DModel or UNet2DConditionModel",
    ),
    "not a model": (lambda f: change_config(f, _class_name=None), "cannot be exported yet(.|\n)*None"),
    "impossible config": (
        lambda f: change_config(f, down_block_types=["NoBlock", "NoBlock"]),
        "describes no network that diffusers can make(.|\n)*NoBlock",
    ),
    "no size": (lambda f: change_config(f, sample_size=None), "how large its samples are(.|\n)*sample_size = None"),
    "extra channels": (
        lambda f: change_config(f, out_channels=3),
        "output is no sample(.|\n)*in_channels 1, out_channels 3",
    ),
    "timestep labels": (
        lambda f: change_config(f, class_embed_type="identity"),
        "labels of a kind that cannot be exported(.|\n)*'identity'(.|\n)*--spec FILE",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "the weights are missing(.|\n)*no weight file"),
    "pickled": (pickled, r"never unpickles(.|\n)*diffusion_pytorch_model\.bin(.|\n)*safe_serialization=True"),
    "truncated": (cut, "is no whole safetensors file(.|\n)*bytes"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "is no whole safetensors file(.|\n)*0 bytes"),
    "missing tensor": (
        lambda f: change_weights(f, lambda t: t.pop("conv_in.bias")),
        r"tensors are missing from the weights(.|\n)*conv_in\.bias",
    ),
    "extra tensor": (
        lambda f: change_weights(f, lambda t: t.update(spare=torch.zeros(1))),
        "tensors that the network has not(.|\n)*spare",
    ),
    "other shape": (
        lambda f: change_weights(f, lambda t: t.update({"conv_in.bias": torch.zeros(9)})),
        r"another shape(.|\n)*conv_in\.bias \(9,\) instead of \(8,\)",
    ),
    "integers": (
        lambda f: change_weights(f, lambda t: t.update({"conv_in.bias": torch.zeros(8, dtype=torch.int8)})),
        r"not of a floating type(.|\n)*conv_in\.bias torch\.int8",
    ),
    "NaN": (
        lambda f: change_weights(f, lambda t: t["conv_in.bias"].fill_(float("nan"))),
        r"hold NaN(.|\n)*conv_in\.bias",
    ),
    "data range": (
        lambda f: (f / "training.json").write_text('{"data_range": [1, -1]}'),
        r"training\.json does not fit(.|\n)*data_range = \[1.0, -1.0\]",
    ),
    "endless data range": (
        lambda f: (f / "training.json").write_text('{"data_range": [-1, Infinity]}'),
        r"training\.json does not fit(.|\n)*data_range",
    ),
    "classes": (
        lambda f: (f / "training.json").write_text('{"num_classes": 0}'),
        r"training\.json does not fit(.|\n)*num_classes",
    ),
    "null class": (
        lambda f: (f / "training.json").write_text('{"null_class": -1}'),
        r"training\.json does not fit(.|\n)*null_class",
    ),
    "training.json": (
        lambda f: (f / "training.json").write_text('{"null_class": "ten"}'),
        r"training\.json does not fit(.|\n)*null_class",
    ),
}


@pytest.mark.parametrize(("damage", "text"), DEFECTS.values(), ids=DEFECTS)
def test_defects_have_their_own_text(checkpoint: Path, damage: Callable[[Path], object], text: str) -> None:
    damage(checkpoint)
    with pytest.raises(ExportError, match=text) as caught:
        load_source(checkpoint)
    assert "expected:" in str(caught.value)


SHARD_DEFECTS: dict[str, tuple[Callable[[Path, dict[str, Any]], object], str]] = {
    "no map": (lambda folder, index: index.pop("weight_map"), "has no weight_map"),
    "path": (
        lambda folder, index: index["weight_map"].update({"conv_in.bias": "../x.safetensors"}),
        r"names a file that is no shard(.|\n)*\.\./x",
    ),
    "pickle": (
        lambda folder, index: index["weight_map"].update({"conv_in.bias": "x.bin"}),
        "names a file that is no shard",
    ),
    "missing shard": (
        lambda folder, index: (folder / index["weight_map"]["conv_in.bias"]).unlink(),
        "a shard of the weights is missing",
    ),
    "repeated tensor": (
        lambda folder, index: shutil.copy(
            folder / index["weight_map"]["conv_in.bias"], folder / index["weight_map"]["conv_out.bias"]
        ),
        "two shards hold the same tensor|tensors are missing",
    ),
}


@pytest.mark.parametrize(("damage", "text"), SHARD_DEFECTS.values(), ids=SHARD_DEFECTS)
def test_shard_defects(
    conditional: Path, tmp_path: Path, damage: Callable[[Path, dict[str, Any]], object], text: str
) -> None:
    folder = Path(shutil.copytree(conditional / "unet", tmp_path / "unet"))
    path = folder / "diffusion_pytorch_model.safetensors.index.json"
    index = json.loads(path.read_text())
    damage(folder, index)
    path.write_text(json.dumps(index))
    with pytest.raises(ExportError, match=text):
        load_source(folder)


def test_missing_subfolder(pristine: Path) -> None:
    with pytest.raises(OptionError, match="no such subfolder"):
        load_source(pristine, "transformer")


def test_other_object_in_memory() -> None:
    with pytest.raises(ExportError, match=r"cannot be exported yet(.|\n)*'Linear'"):
        source_of_model(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("key", "value"), [("addition_embed_type", "image_hint"), ("encoder_hid_dim_type", "image_proj")]
)
def test_conditions_that_are_refused(conditional: Path, key: str, value: object) -> None:
    from dpmrt.export.interfaces import interface_of

    config = {**load_source(conditional).config, key: value}
    with pytest.raises(ExportError, match=f"conditions that cannot be exported(.|\n)*{key} = '{value}'(.|\n)*--spec"):
        interface_of(config)
