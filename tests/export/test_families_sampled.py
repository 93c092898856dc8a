"""From a diffusers network to samples, a family at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnxruntime
import pytest
import torch
from tiny_family import Traced, tiny

from dpmrt.export import export_bundle
from dpmrt.runtime import load
from dpmrt.solvers_np import randn

Export = Callable[[str], Path]


@pytest.fixture
def export(graph: Callable[[str], Traced], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Export:
    """Export the tiny network of a name with a DDIM scheduler."""

    def run(name: str) -> Path:
        monkeypatch.setattr("dpmrt.export.network.trace", lambda *given, **options: graph(name).graph.clone())
        diffusers.DDIMScheduler(clip_sample=False).save_pretrained(str(tmp_path / "scheduler"))
        return export_bundle(tiny(name), tmp_path / "bundle", scheduler=tmp_path / "scheduler")

    return run


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def test_sdxl_as_diffusers_would_sample_it(export: Export) -> None:
    given = {
        "encoder_hidden_states": normal(2, 7, 12),
        "text_embeds": normal(2, 8),
        "time_ids": np.array([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]] * 2, np.float32),
    }
    away = {"encoder_hidden_states": np.zeros((1, 7, 12), np.float32), "text_embeds": np.zeros((1, 8), np.float32)}
    with load(export("sdxl")) as pipeline:
        got = pipeline.sample(2, seed=0, steps=10, shape=(4, 10, 6), conditions=given, negative=away, guidance=3.0)
    network, scheduler = tiny("sdxl"), diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    text, pooled, ids = (torch.from_numpy(value) for value in given.values())
    x = torch.from_numpy(randn((2, 4, 10, 6), 0).astype(np.float32))

    def noise(t: Any, tokens: Any, vector: Any) -> Any:
        added = {"text_embeds": vector, "time_ids": ids}
        return network(x, t, tokens, added_cond_kwargs=added, return_dict=False)[0]

    with torch.inference_mode():
        for t in scheduler.timesteps:
            null = noise(t, torch.zeros_like(text), torch.zeros_like(pooled))
            x = scheduler.step(null + 3.0 * (noise(t, text, pooled) - null), t, x).prev_sample
    np.testing.assert_allclose(got, x.numpy(), rtol=1e-4, atol=1e-4 * float(x.abs().max()))


def test_inpainting(export: Export) -> None:
    given = {
        "encoder_hidden_states": normal(1, 7, 12),
        "timestep_cond": normal(1, 5),
        "extra_channels": normal(2, 5, 8, 8),
    }
    with load(export("inpainting, distilled, labels")) as pipeline:
        got = pipeline.sample(2, steps=4, conditions=given, label=3)
        other = pipeline.sample(
            2, steps=4, conditions={**given, "extra_channels": normal(1, 5, 8, 8)[:, ::-1]}, label=3
        )
    assert got.shape == (2, 4, 8, 8)
    assert np.isfinite(got).all()
    assert not np.allclose(got, other)


@pytest.mark.slow
def test_stable_video(export: Export) -> None:
    given = {
        "encoder_hidden_states": normal(1, 1, 12),
        "added_time_ids": np.array([[6.0, 127.0, 0.02]], np.float32),
        "extra_channels": normal(2, 5, 4, 8, 8),
    }
    with load(export("stable video")) as pipeline:
        assert pipeline.manifest.unet.channel_axis == 2
        got = pipeline.sample(2, steps=3, shape=(5, 4, 8, 8), conditions=given)
    assert got.shape == (2, 5, 4, 8, 8)
    assert np.isfinite(got).all()


def test_the_unet_folder_is_one_of_diffusers_onnx_models(export: Export, graph: Callable[[str], Traced]) -> None:
    unet = export("sdxl") / "unet"
    source = graph("sdxl").source
    tensors = source.interface.examples(batch=2, tokens=5)
    inputs = {role: tensor.numpy() for role, tensor in tensors.items()}
    with torch.inference_mode():
        expected = source.predict(tensors).numpy()
    # diffusers has no default for the options, and its own pipelines pass them.
    model = diffusers.OnnxRuntimeModel.from_pretrained(
        str(unet), provider="CPUExecutionProvider", provider_options=None
    )
    (got,) = model(**inputs)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
    session = onnxruntime.InferenceSession(str(unet / "model.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["out_sample"], inputs)[0], got)
