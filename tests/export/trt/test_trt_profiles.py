"""Profiles: from a manifest's axes, from trtexec's flags, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from dpmrt.engines import Axis, Network, TensorSpec
from dpmrt.engines.built import Range
from dpmrt.errors import OptionError
from dpmrt.export.tensorrt.profiles import make_profiles, parse_shapes

AXES = {"batch": Axis(opt=2, max=8), "side": Axis(opt=64, min=32, max=96, multiple=8)}


def network(axes: dict[str, Axis] | None = None, **shapes: tuple[int | str, ...]) -> Network:
    kinds: dict[str, tuple[int | str, ...]] = {"sample": ("batch", 4, "side", "side"), "timestep": ("batch",)}
    inputs = tuple(TensorSpec(name, name, "float32", shape) for name, shape in {**kinds, **shapes}.items())
    return Network("unet/model.onnx", inputs, (), axes=AXES if axes is None else axes)


def test_axes_of_the_manifest() -> None:
    assert make_profiles(network()) == (
        {
            "sample": Range((1, 4, 32, 32), (2, 4, 64, 64), (8, 4, 96, 96)),
            "timestep": Range((1,), (2,), (8,)),
        },
    )


def test_a_batch_of_which_nothing_is_said() -> None:
    (profile,) = make_profiles(network({}, sample=("batch", 4, 8, 8)))
    assert profile["sample"] == Range((1, 4, 8, 8), (2, 4, 8, 8), (8, 4, 8, 8))


def test_an_axis_without_a_largest_size() -> None:
    axes = {"batch": Axis(opt=16), "side": Axis(opt=24, multiple=8)}
    (profile,) = make_profiles(network(axes))
    assert profile["sample"] == Range((1, 4, 1, 1), (16, 4, 24, 24), (32, 4, 48, 48))


def test_an_axis_without_any_size() -> None:
    with pytest.raises(
        OptionError, match=r"nothing says what sizes the axis `side` of `sample`[\s\S]*--optShapes=sample"
    ):
        make_profiles(network({}))
    (profile,) = make_profiles(network({}), sizes={"side": 64})
    assert profile["sample"] == Range((1, 4, 64, 64), (2, 4, 64, 64), (8, 4, 64, 64))


def test_other_inputs_follow_the_ones_that_are_given() -> None:
    (profile,) = make_profiles(network(), ["sample:1x4x64x64"], ["sample:4x4x64x64"], ["sample:8x4x64x64"])
    assert profile == {
        "sample": Range((1, 4, 64, 64), (4, 4, 64, 64), (8, 4, 64, 64)),
        "timestep": Range((1,), (4,), (8,)),
    }


def test_one_flag_alone_fixes_the_shape_as_trtexec_does() -> None:
    (profile,) = make_profiles(network(), opts=["sample:4x4x64x64"])
    assert profile["sample"] == Range(*[(4, 4, 64, 64)] * 3)


def test_several_profiles() -> None:
    profiles = make_profiles(network(), opts=["sample:1x4x64x64", "sample:8x4x64x64"])
    assert [profile["timestep"].opt for profile in profiles] == [(1,), (8,)]


def test_a_fixed_graph_has_none() -> None:
    fixed = network({}, sample=(2, 4, 8, 8), timestep=(2,))
    assert make_profiles(fixed) == ()
    with pytest.raises(OptionError, match="the graph has no free axes"):
        make_profiles(fixed, opts=["sample:2x4x8x8"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"opts": ["smaple:1x4x64x64"]}, r"--optShapes names an input that the graph does not have\n.*smaple"),
        ({"opts": ["sample:1x4x64"]}, r"--optShapes of `sample` does not fit the network\n.*\(1, 4, 64\)"),
        ({"opts": ["sample:1x3x64x64"]}, r"does not fit the network\n.*\(1, 3, 64, 64\)\n.*\(batch, 4, side, side\)"),
        ({"opts": ["sample:1x4x64x96"]}, r"different sizes on one axis\n.*side = 96"),
        ({"opts": ["sample:1x4x60x60"]}, r"size that the network does not take\n.*side = 60\n.*multiples of 8"),
        ({"maxs": ["sample:9x4x64x64"]}, r"batch = 9\n.*1 to 8"),
        ({"opts": ["sample:1x4x64x64,timestep:2"]}, r"different sizes on one axis\n.*batch = 2\n.*batch = 1"),
        (
            {"mins": ["sample:4x4x64x64"], "opts": ["sample:2x4x64x64"]},
            r"shapes of `sample` contradict one another\n.*min 4x4x64x64, opt 2x4x64x64, max 2x4x64x64",
        ),
        (
            {"mins": ["sample:1x4x64x64"], "opts": ["sample:1x4x64x64", "sample:2x4x64x64"]},
            r"every profile needs its own shapes\n.*--minShapes 1 times, --optShapes 2 times",
        ),
        ({"opts": ["sample:1x4x64x64"] * 2}, "two profiles are the same"),
    ],
    ids=str,
)
def test_shapes_that_cannot_be(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        make_profiles(network(), **flags)
    assert caught.value.fix


def test_what_to_write_instead_is_what_the_network_takes() -> None:
    with pytest.raises(OptionError) as caught:
        make_profiles(network(), opts=["sample:1x3x64x64"])
    flag, _, text = str(caught.value.fix).partition("=")
    assert flag == "--optShapes"
    assert make_profiles(network(), opts=[text])


@pytest.mark.parametrize(
    "text",
    ["", "sample", "sample:", ":1x2", "sample:1x", "sample:0x4", "sample:-1x4", "sample:1.5", "sample:99999999999"],
)
def test_texts_that_are_no_shapes(text: str) -> None:
    with pytest.raises(OptionError, match="--minShapes is no shape"):
        parse_shapes(text, "--minShapes")


def test_names_as_trtexec_takes_them() -> None:
    assert parse_shapes("'a:0':1x2, b:3") == {"a:0": (1, 2), "b": (3,)}
    with pytest.raises(OptionError, match="names an input twice"):
        parse_shapes("a:1,a:2")
