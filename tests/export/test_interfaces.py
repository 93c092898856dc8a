"""The graph of every class and variant computes what torch computes, at any size that it leaves open."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_family import FAMILY, Traced, tiny

from dpmrt.engines import Axis
from dpmrt.errors import ExportError, OptionError
from dpmrt.export.cli.axes import parse_axes
from dpmrt.export.interfaces import interface_of
from dpmrt.export.sources import source_of_model
from dpmrt.export.tracing import trace

# Sizes that no axis is traced at, nor by default.
SIZES = [
    {"batch": 1, "tokens": 1, "frames": 3, "height": 6, "width": 10, "length": 64},
    {"batch": 2, "tokens": 9, "frames": 7, "height": 12, "width": 4, "length": 48},
]
VIDEOS = {"film", "motion", "stable video", "picture to video"}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in VIDEOS else []) for name in FAMILY]


def worst(graph: Traced, **sizes: int) -> float:
    """Return the largest error against torch, relative to the largest value."""
    source, session = graph.source, graph.session
    inputs = source.interface.examples(seed=1, **{k: v for k, v in sizes.items() if k in source.interface.axes})
    with torch.inference_mode():
        expected = source.predict(inputs).numpy()
    (got,) = session.run(None, {role: tensor.numpy() for role, tensor in inputs.items()})
    assert got.shape == expected.shape
    assert len(got) == sizes["batch"]
    assert np.abs(expected).max() > 0.1
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_agrees_with_torch(graph: Callable[[str], Traced], name: str) -> None:
    found = graph(name)
    for sizes in SIZES:
        assert worst(found, **sizes) < 1e-5, sizes


@pytest.mark.parametrize("name", NAMES)
def test_seventy_at_once(graph: Callable[[str], Traced], name: str) -> None:
    assert worst(graph(name), batch=70, tokens=2, frames=2, height=4, width=4, length=32) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_every_input_reaches_the_output(graph: Callable[[str], Traced], name: str) -> None:
    source, session = graph(name).source, graph(name).session
    sizes = {k: v for k, v in SIZES[1].items() if k in source.interface.axes}
    inputs = {role: tensor.numpy() for role, tensor in source.interface.examples(**sizes).items()}
    (before,) = session.run(None, inputs)
    for role, array in inputs.items():
        (after,) = session.run(None, {**inputs, role: array[::-1].copy()})
        assert np.abs(after - before).max() > 1e-6, role


@pytest.mark.parametrize("times", [[0.25, 998.75], [1e-3, 500.5]])
def test_fractional_times(graph: Callable[[str], Traced], times: list[float]) -> None:
    source, session = graph("pictures").source, graph("pictures").session
    inputs = {**source.interface.examples(batch=2), "timestep": torch.tensor(times)}
    (got,) = session.run(None, {role: tensor.numpy() for role, tensor in inputs.items()})
    rounded = {**inputs, "timestep": inputs["timestep"].round()}
    with torch.inference_mode():
        np.testing.assert_allclose(got, source.predict(inputs).numpy(), atol=1e-5)
        assert np.abs(got - source.predict(rounded).numpy()).max() > 1e-4


@pytest.mark.parametrize("name", ["sdxl", "planner"])
def test_one_time_for_the_batch(name: str, tmp_path: Path) -> None:
    source = source_of_model(tiny(name)).shaped(one_time=True)
    session = Traced.of(source, tmp_path).session
    assert session.get_inputs()[1].shape == []
    inputs = {role: tensor.numpy() for role, tensor in source.interface.examples(batch=5).items()}
    (got,) = session.run(None, inputs)
    each = source_of_model(tiny(name))
    times = torch.full((5,), float(inputs["timestep"]))
    with torch.inference_mode():
        expected = each.predict({**{r: torch.from_numpy(a) for r, a in inputs.items()}, "timestep": times})
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5 * float(expected.abs().max()))


def interface(name: str) -> Any:
    with torch.device("meta"):
        config = FAMILY[name]().config
    return interface_of({"_class_name": CLASSES[name], **config})


CLASSES = {
    "pictures": "UNet2DModel",
    "text": "UNet2DConditionModel",
    "sdxl": "UNet2DConditionModel",
    "inpainting, distilled, labels": "UNet2DConditionModel",
    "sequences": "UNet1DModel",
    "motion": "UNetMotionModel",
    "stable video": "UNetSpatioTemporalConditionModel",
    "picture to video": "I2VGenXLUNet",
}
ROLES = {
    "sdxl": {"text_embeds": ("batch", 8), "time_ids": ("batch", 6)},
    "inpainting, distilled, labels": {
        "sample": ("batch", 9, "height", "width"),
        "class_labels": ("batch",),
        "timestep_cond": ("batch", 5),
    },
    "sequences": {"sample": ("batch", 3, 32)},
    "motion": {"encoder_hidden_states": ("batch", "tokens", 12)},
    "stable video": {"sample": ("batch", "frames", 8, 8, 8), "added_time_ids": ("batch", 3)},
    "picture to video": {"fps": ("batch",), "image_latents": ("batch", 4, "frames", 8, 8)},
}


@pytest.mark.parametrize(("name", "shapes"), ROLES.items())
def test_roles_and_shapes(name: str, shapes: dict[str, Any]) -> None:
    settled = interface(name).settle()
    assert {role: settled.input(role).shape for role in shapes} == shapes


def test_what_is_sampled_has_the_channels_of_the_output() -> None:
    assert interface("inpainting, distilled, labels").settle().state_shape() == (4, 8, 8)
    assert interface("stable video").settle().state_shape() == (6, 4, 8, 8)


def test_a_sequence_has_channels_of_its_own() -> None:
    config = {"_class_name": "UNet1DModel", "in_channels": 3, "out_channels": 3, "extra_in_channels": 16}
    config |= {"down_block_types": ["DownBlock1DNoSkip"], "block_out_channels": [32], "sample_size": 64}
    with pytest.raises(ExportError, match=r"no channels left(.|\n)*got: +19 (.|\n)*64 of(.|\n)*at least 65"):
        interface_of(config)


def test_axes_fixed_free_and_bounded() -> None:
    settled = interface("text").settle(parse_axes(["batch=2", "height=16", "width=4:8:32", "tokens=free"]))
    assert settled.input("sample").shape == (2, 4, 16, "width")
    assert settled.output == (2, 4, 16, "width")
    assert settled.free() == {"tokens": Axis(opt=77), "width": Axis(opt=8, min=4, max=32, multiple=2)}


AXES: dict[str, tuple[str, str, str]] = {
    "unknown": ("pictures", "frames=4", r"has no such axis(.|\n)*got: +frames(.|\n)*expected: batch, height, width"),
    "no multiple": (
        "text",
        "height=13",
        r"cannot have this size(.|\n)*13(.|\n)*in multiples of 2(.|\n)*height=8",
    ),
    "bound that is no multiple": ("text", "height=3:8:16", r"height cannot have this size(.|\n)*got: +3"),
    "too long": ("motion", "frames=13", r"frames cannot have this size(.|\n)*13(.|\n)*1 to 12"),
    "too long a bound": ("motion", "frames=2:8:64", r"frames cannot have this size(.|\n)*64(.|\n)*1 to 12"),
    "only one size": (
        "picture to video",
        "height=free",
        r"height cannot be open(.|\n)*height=free(.|\n)*pools its picture to 32(.|\n)*height=8, or leave it out",
    ),
    "only one size, bounded": ("picture to video", "width=4:8:16", r"width cannot be open(.|\n)*width=4:8:16"),
    "no number": ("text", "height=big", r"--axis is no size(.|\n)*height=big"),
    "bounds the wrong way": ("text", "height=16:8:4", r"--axis is no size(.|\n)*NAME=MIN:USUAL:MAX"),
    "nothing": ("text", "height=0", r"--axis is no size"),
}


@pytest.mark.parametrize(("name", "text", "said"), AXES.values(), ids=AXES)
def test_axes_that_are_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        interface(name).settle(parse_axes([text]))


def test_an_axis_given_twice() -> None:
    with pytest.raises(OptionError, match=r"height is given twice(.|\n)*each axis once"):
        parse_axes(["height=8", "height=16"])


class Fixed(torch.nn.Module):  # type: ignore[misc]
    """A network whose code fixes how wide its pictures are."""

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        return (sample * sample.new_ones(8) + timestep[:, None, None, None],)


def test_an_axis_that_the_code_fixes() -> None:
    settled = interface("pictures").settle({"width": "free"})
    with pytest.raises(ExportError, match=r"cannot have an open axis width: its code fixes(.|\n)*--axis width=SIZE"):
        trace(Fixed(), dataclasses.replace(settled, output=settled.input("sample").shape), {})
