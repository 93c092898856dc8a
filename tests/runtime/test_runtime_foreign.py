"""Folders that optimum wrote: conditions by their own names, and channels that the graph leaves open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_bundles import Make
from tiny_conditioned import answer, write_conditioned

from dpmrt.errors import BundleError, OptionError
from dpmrt.runtime import load, open_bundle
from dpmrt.runtime.onnx_header import read_graph_header
from dpmrt.solvers_np import randn, run_plan

CONFIG = {"in_channels": 4, "out_channels": 4, "sample_size": 8}
SDXL: dict[str, Any] = {
    "encoder_hidden_states": ("float32", ("batch", "sequence_length", 3)),
    "text_embeds": ("float32", ("batch", 5)),
    "time_ids": ("float32", ("batch", 6)),
    "timestep_cond": ("float32", ("batch", 2)),
}
GIVEN = {
    "encoder_hidden_states": np.random.default_rng(0).standard_normal((1, 7, 3)).astype(np.float32),
    "text_embeds": np.ones((1, 5), np.float32),
    "time_ids": np.array([[8, 8, 0, 0, 8, 8]]),
    "timestep_cond": np.zeros((1, 2), np.float32),
}


def open_the_channels(root: Path) -> None:
    """Leave the channels of input and output open, as optimum does."""
    model = onnx.load(str(root / "unet/model.onnx"))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[1].dim_param = "num_channels"
    onnx.save(model, str(root / "unet/model.onnx"))


def test_inputs_of_other_names_are_conditions(tmp_path: Path) -> None:
    root = write_conditioned(tmp_path / "b", conditions=SDXL, manifest=False, config=CONFIG)
    open_the_channels(root)
    network = open_bundle(root).manifest.unet
    assert [spec.role for spec in network.conditions] == list(SDXL)
    with load(root) as pipeline:
        expected = run_plan(pipeline.plan(), lambda x, t: answer(x, t[0], GIVEN), randn((1, 4, 8, 8), 0))
        np.testing.assert_allclose(pipeline.sample(conditions=GIVEN), expected, rtol=1e-4, atol=1e-4)
        with pytest.raises(OptionError, match="conditioned on time_ids, which is missing"):
            pipeline.sample(conditions={name: GIVEN[name] for name in GIVEN if name != "time_ids"})


@pytest.mark.parametrize("free", [False, True])
def test_an_inpainting_graph_takes_its_extra_channels_as_a_condition(tmp_path: Path, free: bool) -> None:
    config = {**CONFIG, "in_channels": 9}
    sample = ("batch", 9, "height", "width")
    root = write_conditioned(tmp_path / "b", sample=sample, channels=4, manifest=False, config=config)
    if free:
        open_the_channels(root)
    mask = np.random.default_rng(0).standard_normal((1, 5, 8, 8)).astype(np.float32)
    with load(root) as pipeline:
        assert pipeline.manifest.unet.extra_channels == 5

        def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
            return answer(x, t[0], {"extra_channels": mask})

        expected = run_plan(pipeline.plan(), model, randn((1, 4, 8, 8), 0))
        got = pipeline.sample(conditions={"extra_channels": mask})
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_video_network_has_its_channels_behind_its_frames(tmp_path: Path) -> None:
    config = {"_class_name": "UNetSpatioTemporalConditionModel", "in_channels": 8, "out_channels": 4}
    sample = ("batch", "frames", 8, "height", "width")
    root = write_conditioned(tmp_path / "b", sample=sample, channels=4, axis=2, manifest=False, config=config)
    network = open_bundle(root).manifest.unet
    assert (network.sample_shape, network.extra_channels) == (("frames", 4, "height", "width"), 4)
    with load(root) as pipeline:
        picture = np.ones((1, 3, 4, 6, 8), np.float32)
        samples = pipeline.sample(shape=(3, 4, 6, 8), steps=2, conditions={"extra_channels": picture})
        assert samples.shape == (1, 3, 4, 6, 8)


@pytest.mark.parametrize("config", ["[]", "{", '{"in_channels": "9", "out_channels": -4}', '{"in_channels": true}'])
def test_a_config_that_says_nothing_leaves_the_channels_open(tmp_path: Path, config: str) -> None:
    root = write_conditioned(tmp_path / "b", manifest=False)
    open_the_channels(root)
    (root / "unet/config.json").write_text(config)
    if config.startswith("{") and config != "{":
        assert open_bundle(root).manifest.unet.sample_shape == ("num_channels", "height", "width")
        return
    with pytest.raises(BundleError, match=r"unet/config\.json is not"):
        open_bundle(root)


def test_a_condition_can_be_named(tmp_path: Path) -> None:
    conditions = {"pooled": ("float32", ("batch", 5))}
    root = write_conditioned(tmp_path / "b", sample=("batch", 1, 4), conditions=conditions, manifest=False)
    pooled = np.ones((1, 5), np.float32)
    with load(root) as own, load(root, names={"text_embeds": "pooled"}) as named:
        np.testing.assert_array_equal(
            own.sample(steps=2, conditions={"pooled": pooled}),
            named.sample(steps=2, conditions={"text_embeds": pooled}),
        )


def test_two_inputs_for_one_role_are_refused(tmp_path: Path) -> None:
    conditions = {name: ("float32", ("batch", 2, 3)) for name in ("context", "prompt_embeds")}
    root = write_conditioned(tmp_path / "b", sample=("batch", 1, 4), conditions=conditions, manifest=False)
    with pytest.raises(BundleError, match="two inputs for `encoder_hidden_states`") as caught:
        open_bundle(root)
    assert caught.value.got == "context, prompt_embeds"
    assert str(caught.value.fix).endswith("names={ROLE: 'prompt_embeds'})")
    assert len(open_bundle(root, names={"second_text": "prompt_embeds"}).manifest.unet.conditions) == 2


def test_the_weights_of_a_graph_are_counted(make_bundle: Make) -> None:
    # kernel 9, slope 1, table 4; the column of a reshape is of integers
    assert read_graph_header(make_bundle(labels=True) / "unet/model.onnx").numbers == 14
