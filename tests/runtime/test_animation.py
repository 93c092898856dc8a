"""Animated PNGs: their chunks by the specification, and what another reader makes of them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.animation import check_frames, sheets, strip, write_apng
from dpmrt.runtime.images_read import read_png


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size)[0] == zlib.crc32(data[at + 4 : at + 8] + body)
        found.append((data[at + 4 : at + 8], body))
        at += 12 + size
    return found


def animation(frames: np.ndarray, **options: float) -> bytes:
    stream = io.BytesIO()
    write_apng(stream, frames, **options)  # type: ignore[arg-type]
    return stream.getvalue()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3]), st.integers(0, 3))
def test_frames_come_back_in_order(count: int, height: int, width: int, channels: int, loops: int) -> None:
    frames = np.random.default_rng(count).integers(0, 256, (count, height, width, channels), np.uint8)
    data = animation(frames, fps=8, loops=loops)
    found = chunks(data)
    kinds = [kind for kind, _ in found]
    assert kinds == [b"IHDR", b"acTL", b"fcTL", b"IDAT", *[b"fcTL", b"fdAT"] * (count - 1), b"IEND"]
    assert struct.unpack(">II", found[1][1]) == (count, loops)
    numbers = [struct.unpack_from(">I", body)[0] for kind, body in found if kind in (b"fcTL", b"fdAT")]
    assert numbers == list(range(2 * count - 1))
    for kind, body in found:
        if kind == b"fcTL":
            assert struct.unpack(">IIIIIHHBB", body)[1:] == (width, height, 0, 0, 1, 8, 0, 0)
    np.testing.assert_array_equal(read_png(data), frames[0])
    with Image.open(io.BytesIO(data)) as picture:
        assert getattr(picture, "n_frames", 1) == count
        for k in range(count):
            picture.seek(k)
            np.testing.assert_array_equal(np.asarray(picture).reshape(frames[k].shape), frames[k])
        if count > 1:
            assert (picture.info["duration"], picture.info["loop"]) == (125.0, loops)


@pytest.mark.parametrize(("fps", "delay"), [(10, (1, 10)), (12.5, (2, 25)), (0.5, (2, 1)), (1000, (1, 1000))])
def test_frames_a_second_are_kept_as_two_numbers(fps: float, delay: tuple[int, int]) -> None:
    control = dict(chunks(animation(np.zeros((2, 1, 1, 1), np.uint8), fps=fps)))[b"fcTL"]
    assert struct.unpack(">IIIIIHHBB", control)[5:7] == delay


def test_what_is_no_animation_is_refused() -> None:
    for wrong in (np.zeros((2, 4, 4, 2), np.uint8), np.zeros((0, 4, 4, 1), np.uint8), np.zeros((2, 4, 4, 1))):
        with pytest.raises(ArrayError, match="no frames of an animation"):
            animation(wrong)
    frames = np.zeros((2, 4, 4, 1), np.uint8)
    for fps in (0, -1, float("nan"), 1e9, "fast"):
        with pytest.raises(OptionError, match=r"fps is out of range\n.*\n.*0.01 to 1000"):
            animation(frames, fps=fps)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="loops is out of range"):
        animation(frames, loops=-1)
    with pytest.raises(OptionError, match=r"the animation is too large\n.*megapixels in 1000 frames"):
        check_frames(1000, 64, (3, 64, 64), columns=None, scale=2)


def test_sheets_and_strips_lay_frames_out() -> None:
    frames = np.linspace(-1, 1, 3 * 2 * 4 * 4).reshape(3, 2, 1, 4, 4)
    moving = sheets(frames, (-1.0, 1.0), scale=1)
    assert moving.shape == (3, 4, 9, 1)
    still = strip(frames, (-1.0, 1.0), scale=1)
    assert still.shape == (9, 14, 1)
    for k in range(3):
        np.testing.assert_array_equal(still[:4, 5 * k : 5 * k + 4], moving[k, :, :4])
        np.testing.assert_array_equal(still[5:, 5 * k : 5 * k + 4], moving[k, :, 5:])
