from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dpmrt.errors import ArrayError, NonFiniteError, OptionError
from dpmrt.runtime.images import check_picture, layout, plan_sheet, to_uint8, write_png


def test_the_range_is_mapped_rounded_and_cut() -> None:
    values = np.array([-2, -1, -0.5, 0, 0.5, 1, 9], np.float32)
    assert to_uint8(values).tolist() == [0, 0, 64, 128, 191, 255, 255]
    assert to_uint8(np.array([0.0, 0.5, 1.0]), (0.0, 1.0)).tolist() == [0, 128, 255]


def test_samples_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        to_uint8(np.array([np.nan]))


def test_pictures_lie_row_by_row_and_the_rest_is_black() -> None:
    pictures = np.stack([np.full((1, 2, 3), value, np.uint8) for value in (10, 20, 30)])
    image = layout(pictures, columns=2, scale=1)
    assert image.shape == (5, 7, 1)
    assert image[::3, ::4, 0].tolist() == [[10, 20], [30, 0]]
    assert (image[2] == 96).all()
    assert (image[:, 3] == 96).all()


def test_scaling_repeats_pixels() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    image = layout(picture, scale=3)
    assert image.shape == (6, 6, 3)
    np.testing.assert_array_equal(image[::3, ::3], picture[0].transpose(1, 2, 0))
    assert (image[:3, :3] == image[0, 0]).all()


def test_tiny_pictures_grow_by_default_and_large_ones_do_not() -> None:
    assert layout(np.zeros((1, 1, 8, 8), np.uint8)).shape == (64, 64, 1)
    assert layout(np.zeros((4, 3, 512, 512), np.uint8)).shape == (1025, 1025, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_reads_back_as_it_was(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    stream = io.BytesIO()
    write_png(stream, image)
    with Image.open(stream) as read:
        assert read.mode == ("L" if channels == 1 else "RGB")
        np.testing.assert_array_equal(np.asarray(read).reshape(image.shape), image)


@pytest.mark.parametrize("shape", [(4, 64, 64), (2, 8, 8), (16,)])
def test_latents_are_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(ArrayError, match="are no pictures") as caught:
        check_picture(shape)
    assert "npy" in str(caught.value.fix)


@pytest.mark.parametrize(("batch", "columns", "scale"), [(1, None, 100_000), (1 << 20, None, None), (2, 1, 10**30)])
def test_a_sheet_beyond_measure_is_refused(batch: int, columns: int | None, scale: int | None) -> None:
    with pytest.raises(OptionError, match="too large") as caught:
        plan_sheet(batch, (1, 8, 8), columns=columns, scale=scale)
    assert "100 megapixels" in str(caught.value.expected)
    assert plan_sheet(1024, (3, 32, 32)) == (32, 32, 2)


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"scale": -1}])
def test_impossible_layouts_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="out of range"):
        layout(np.zeros((1, 1, 8, 8), np.uint8), **wrong)
