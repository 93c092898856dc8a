"""Networks with more to be told than sample and time, or with open sizes, are verified like any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, I2VGenXLUNet, UNet2DConditionModel, UNet2DModel, UNetSpatioTemporalConditionModel
from tiny_networks import TINY, save_scheduler

from dpmrt.engines import Axis, Guidance, TensorSpec, read_manifest
from dpmrt.errors import OptionError
from dpmrt.export import export_bundle, load_source, verify
from dpmrt.export.bundle import make_plan, read_scheduler
from dpmrt.export.certificate import BackendRunner, TorchRunner
from dpmrt.export.certificate.cases import another_size, case_shapes, make_cases
from dpmrt.export.certificate.conditions import guidance_scale, make_condition, request
from dpmrt.export.certificate.reference import run_calls
from dpmrt.export.draft import draft_manifest
from dpmrt.export.sources import Source, source_of_model
from dpmrt.export.torch_sampler import EXTRA_CHANNELS, Condition, predict_guided, sample_with_torch
from dpmrt.runtime.backends import open_backend

TIMES = (0.0, 0.37, 499.0, 999.0)
CROSS: dict[str, Any] = {
    "cross_attention_dim": 12,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def sdxl() -> Any:
    return UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 10,
        **CROSS,
        **TINY,
    )


def inpainting() -> Any:
    return UNet2DConditionModel(in_channels=9, out_channels=4, **CROSS, **TINY)


def pictured() -> Any:
    return I2VGenXLUNet(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_num_groups=2,
        cross_attention_dim=32,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )


def video() -> Any:
    return UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        num_attention_heads=2,
        cross_attention_dim=12,
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=12,
        num_frames=3,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    )


def unlabelled(**options: Any) -> Any:
    blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
    return UNet2DModel(**{"in_channels": 1, "out_channels": 1, **blocks, **TINY, **options})


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(str(folder / "unet"), safe_serialization=True)
    save_scheduler(folder)
    return folder


NETWORKS: dict[str, tuple[Any, float, dict[str, tuple[int, ...]]]] = {
    "SDXL": (sdxl, 4.0, {"text_embeds": (2, 10), "time_ids": (2, 6), "encoder_hidden_states": (2, 77, 12)}),
    "inpainting": (inpainting, 3.0, {"extra_channels": (2, 5, 8, 8), "encoder_hidden_states": (2, 77, 12)}),
}


@pytest.mark.parametrize(("make", "guidance", "told"), NETWORKS.values(), ids=NETWORKS)
def test_conditions(tmp_path: Path, make: Any, guidance: float, told: Mapping[str, tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    folder = save(make(), tmp_path / "source")
    bundle = export_bundle(folder, tmp_path / "bundle")
    source, manifest = load_source(folder), read_manifest(bundle)
    condition = make_condition(manifest, source.interface, batch=2, seed=0, guidance=guidance, sizes={})
    assert {role: condition.wanted[role].shape for role in told} == told
    report = verify(bundle, steps=3, guidance=guidance, plot=False)
    assert report.passed, report.backends[0].failures


MADE_UP: dict[str, tuple[Any, dict[str, tuple[int, ...]]]] = {
    "I2VGenXL": (pictured, {"fps": (2,), "image_latents": (2, 4, 5, 8, 8), "image_embeddings": (2, 32)}),
    "Stable Video Diffusion": (video, {"extra_channels": (2, 5, 4, 8, 8), "added_time_ids": (2, 3)}),
}


@pytest.mark.parametrize(("make", "told"), MADE_UP.values(), ids=MADE_UP)
def test_conditions_of_videos(tmp_path: Path, make: Any, told: Mapping[str, tuple[int, ...]]) -> None:
    source = source_of_model(make())
    sizes = {"frames": 5}
    manifest = drafted(source, tmp_path)
    condition = make_condition(manifest, source.interface, batch=2, seed=0, guidance=None, sizes=sizes)
    assert {role: condition.wanted[role].shape for role in told} == told
    assert request(manifest, condition)["conditions"].keys() >= told.keys()


def test_extra_channels_stand_behind_the_frames() -> None:
    torch.manual_seed(0)
    source = source_of_model(video())
    state, extra = torch.zeros(2, 3, 4, 8, 8), np.ones((2, 3, 4, 8, 8), np.float32)
    others = {role: t.numpy() for role, t in source.interface.examples(batch=2).items() if role.endswith("s")}
    seen: list[Mapping[str, torch.Tensor]] = []

    def predict(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        seen.append(tensors)
        return state

    source.predict = predict  # type: ignore[method-assign]
    config = {**DDIMScheduler().config, "_class_name": "DDIMScheduler"}
    sampled = sample_with_torch(
        source, config, steps=1, batch=2, seed=0, condition=Condition({**others, EXTRA_CHANNELS: extra})
    )
    assert sampled.states[0].shape == state.shape
    assert sorted(seen[0]) == ["added_time_ids", "encoder_hidden_states", "sample", "timestep"]
    assert seen[0]["sample"].shape == (2, 3, 8, 8, 8)
    assert torch.equal(seen[0]["sample"][:, :, 4:], torch.from_numpy(extra))


def test_open_sizes(tmp_path: Path) -> None:
    folder = save(unlabelled(), tmp_path / "source")
    sizes = {"height": "free", "width": Axis(opt=12, min=4, max=16, multiple=4)}
    bundle = export_bundle(folder, tmp_path / "bundle", sizes=sizes)
    report = verify(bundle, steps=2, shape=(1, 6, 8), plot=False)
    assert report.passed
    assert report.shape == (1, 6, 8)
    assert [call.sizes for call in report.backends[0].calls[4:]] == [
        *2 * [{"batch": 3, "height": 6, "width": 8}],
        *2 * [{"batch": 1, "height": 2, "width": 8}],
        *2 * [{"batch": 1, "height": 6, "width": 4}],
    ]
    usual = verify(bundle, steps=2, plot=False)
    assert [call.sizes for call in usual.backends[0].calls[4:6]] == 2 * [{"batch": 3, "height": 8, "width": 12}]
    assert usual.shape == (1, 8, 12)
    with pytest.raises(OptionError, match=r"no samples of this shape(.|\n)*width: 4 to 16, in multiples of 4"):
        verify(bundle, shape=(1, 8, 10))


def test_sizes_of_calls() -> None:
    assert [another_size(Axis(opt=1)), another_size(Axis(opt=77)), another_size(Axis(opt=8, min=8, max=8))] == [
        2,
        38,
        None,
    ]
    fixed = source_of_model(unlabelled()).shaped({"batch": 2})
    assert case_shapes(fixed.interface) == [{}]


def drafted(source: Source, tmp_path: Path, **options: Any) -> Any:
    scheduler = read_scheduler(source, save_scheduler(tmp_path))
    plan = make_plan(source, "fp32", **options)
    return draft_manifest(plan, scheduler, tmp_path / "bundle", **options)


def test_guidance_within_the_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = source_of_model(UNet2DConditionModel(in_channels=4, out_channels=4, **CROSS, **TINY))
    manifest = drafted(source, tmp_path)
    assert guidance_scale(manifest, None) is None
    extra = (
        TensorSpec("negative_encoder_hidden_states", "negative", "float32", ("batch", "tokens", 12)),
        TensorSpec("guidance_scale", "guidance_scale", "float32", ("batch",)),
    )
    unet = msgspec.structs.replace(manifest.unet, inputs=(*manifest.unet.inputs, *extra))
    folded = msgspec.structs.replace(manifest, unet=unet)
    assert guidance_scale(folded, None) == 7.5
    assert guidance_scale(folded, 3.0) == 3.0
    case = make_cases(folded, source.interface, seed=0, times=TIMES, guidance=3.0)[4]
    assert case.tensors["guidance_scale"].tolist() == [3.0, 3.0, 3.0]
    (output,) = run_calls(source, folded, [case], lambda done, total: None)
    wanted = {role: case.tensors[role] for role in ("sample", "timestep", "encoder_hidden_states")}
    null = {**wanted, "encoder_hidden_states": case.tensors["negative_encoder_hidden_states"]}
    with torch.inference_mode():
        a, b = source.predict(null), source.predict(wanted)
    np.testing.assert_allclose(output, (a + 3.0 * (b - a)).numpy(), atol=1e-5)
    condition = make_condition(folded, source.interface, batch=2, seed=0, guidance=3.0, sizes={})
    asked = request(folded, condition)
    assert sorted(asked) == ["encoder_hidden_states", "guidance", "negative_hidden_states"]
    assert not np.array_equal(asked["encoder_hidden_states"], asked["negative_hidden_states"])


def test_a_bundle_with_guidance_within_the_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UNet2DConditionModel(in_channels=4, out_channels=4, **CROSS, **TINY)
    bundle = export_bundle(save(network, tmp_path / "source"), tmp_path / "bundle", fold=True)
    report = verify(bundle, steps=2, plot=False)
    assert report.options["guidance"] == 7.5
    assert report.passed, report.backends[0].failures
    assert verify(bundle, steps=2, guidance=0.0, plot=False).passed


def test_the_label_for_no_class_within_the_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = source_of_model(unlabelled(num_class_embeds=4))
    manifest = drafted(source, tmp_path, guidance=Guidance("classifier_free", 3, 3, 2.0))
    scale = TensorSpec("guidance_scale", "guidance_scale", "float32", ())
    unet = msgspec.structs.replace(manifest.unet, inputs=(*manifest.unet.inputs, scale))
    folded = msgspec.structs.replace(manifest, unet=unet)
    case = make_cases(folded, source.interface, seed=0, times=TIMES, guidance=2.0)[4]
    (output,) = run_calls(source, folded, [case], lambda done, total: None)
    wanted = {role: tensor for role, tensor in case.tensors.items() if role != "guidance_scale"}
    null = {**wanted, "class_labels": torch.full((3,), 3)}
    with torch.inference_mode():
        a, b = source.predict(null), source.predict(wanted)
    np.testing.assert_allclose(output, (a + 2.0 * (b - a)).numpy(), atol=1e-5)


def test_a_learned_variance_is_not_guided() -> None:
    torch.manual_seed(0)
    source = source_of_model(unlabelled(out_channels=2, num_class_embeds=4))
    wanted = {**source.interface.examples(batch=2), "class_labels": torch.tensor([0, 1])}
    null = {**wanted, "class_labels": torch.tensor([3, 3])}
    with torch.inference_mode():
        guided = predict_guided(source, wanted, null, 5.0)
        a, b = source.predict(null), source.predict(wanted)
    torch.testing.assert_close(guided[:, 1:], b[:, 1:])
    torch.testing.assert_close(guided[:, :1], (a + 5.0 * (b - a))[:, :1])


def test_both_sides_are_runners_of_polygraphy(tmp_path: Path) -> None:
    from polygraphy.comparator import Comparator

    torch.manual_seed(0)
    folder = save(unlabelled(), tmp_path / "source")
    bundle = export_bundle(folder, tmp_path / "bundle")
    source, network = load_source(folder), read_manifest(bundle).unet
    backend = open_backend("onnxruntime", bundle, network)
    feed = {role: tensor.numpy() for role, tensor in source.interface.examples(batch=2).items()}
    results = Comparator.run([TorchRunner(source), BackendRunner("bundle", backend, network)], data_loader=[feed])
    assert [name for name, _ in results] == ["torch", "bundle"]
    first, second = (outputs[0]["out_sample"] for _, outputs in results)
    np.testing.assert_allclose(second, first, atol=1e-4)
    backend.close()
