"""The PNG reader: what is written is read again, every filter by hand, and what is broken or strange is refused."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpmrt.errors import ArrayError
from dpmrt.runtime.images import write_png
from dpmrt.runtime.images_read import read_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    pixels: np.ndarray,
    filters: list[int] | int = 0,
    *,
    colour: int | None = None,
    depth: int = 8,
    interlace: int = 0,
    before: bytes = b"",
    split: int = 1 << 30,
) -> bytes:
    """Write a PNG by hand, each line by the filter that is asked for, as the specification defines them."""
    height, width, channels = pixels.shape
    kinds = [filters] * height if isinstance(filters, int) else filters
    lines, above = [], np.zeros(width * channels, int)
    for row, kind in zip(pixels.reshape(height, -1).astype(int), kinds):
        left = np.concatenate([np.zeros(channels, int), row[:-channels]])
        corner = np.concatenate([np.zeros(channels, int), above[:-channels]])
        p = left + above - corner
        a, b, c = abs(p - left), abs(p - above), abs(p - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        guess = [0 * row, left, above, (left + above) // 2, paeth, 0 * row][min(kind, 5)]
        lines.append(bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = row
    if colour is None:
        colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    packed = zlib.compress(b"".join(lines))
    data = b"".join(chunk(b"IDAT", packed[k : k + split]) for k in range(0, len(packed), split))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return SIGNATURE + chunk(b"IHDR", header) + before + data + chunk(b"IEND", b"")


@st.composite
def pictures(draw: st.DrawFn, channels: tuple[int, ...] = (1, 2, 3, 4)) -> np.ndarray:
    shape = draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.sampled_from(channels))
    size = math.prod(shape)
    return np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8).reshape(shape)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(pictures(), st.lists(st.integers(0, 4), min_size=7, max_size=7), st.integers(1, 40))
def test_every_filter_is_undone(pixels: np.ndarray, filters: list[int], split: int) -> None:
    data = png(pixels, filters[: len(pixels)], split=split)
    np.testing.assert_array_equal(read_png(data), pixels)
    with Image.open(io.BytesIO(data)) as picture:  # what was written by hand is what others read, too
        np.testing.assert_array_equal(np.asarray(picture).reshape(pixels.shape), pixels)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pictures((1, 3)))
def test_what_is_written_is_read_again(pixels: np.ndarray) -> None:
    stream = io.BytesIO()
    write_png(stream, pixels)
    np.testing.assert_array_equal(read_png(stream.getvalue()), pixels)


def test_a_palette_is_painted_and_its_transparency_read() -> None:
    index = np.array([[0, 1], [2, 1]], np.uint8)[..., None]
    colours = np.array([[9, 8, 7], [255, 0, 1], [3, 3, 3]], np.uint8)
    plte = chunk(b"PLTE", colours.tobytes())
    np.testing.assert_array_equal(read_png(png(index, colour=3, before=plte)), colours[index[..., 0]])
    clear = read_png(png(index, colour=3, before=plte + chunk(b"tRNS", b"\x00")))
    assert clear[..., 3].tolist() == [[0, 255], [255, 255]]


def test_a_transparent_colour_becomes_alpha() -> None:
    grey = np.array([[[5], [6]]], np.uint8)
    assert read_png(png(grey, before=chunk(b"tRNS", b"\x00\x06")))[..., 1].tolist() == [[255, 0]]
    rgb = np.array([[[5, 6, 7], [5, 6, 8]]], np.uint8)
    assert read_png(png(rgb, before=chunk(b"tRNS", b"\x00\x05\x00\x06\x00\x07")))[..., 3].tolist() == [[0, 255]]


GREY = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
WHOLE = png(GREY)


def _patched(at: int, value: bytes) -> bytes:
    return WHOLE[:at] + value + WHOLE[at + len(value) :]


def _with_data(packed: bytes, width: int = 4, height: int = 3) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is no PNG"),
    "jpeg": (b"\xff\xd8\xff\xe0", r"is no PNG\n.*\n.*\n.*convert it to a PNG"),
    "sixteen bits": (png(GREY, depth=16), r"a kind of PNG that is not read here\n.*16 bits a channel, not inter"),
    "four bits": (png(GREY, depth=4), "not read here"),
    "interlaced": (png(GREY, interlace=1), r"8 bits a channel, interlaced"),
    "colour type": (png(GREY, colour=5), "colour type 5"),
    "no width": (_with_data(b"", width=0), "0 x 3"),
    "bomb": (_with_data(b"", width=2**20, height=2**20), r"is too large\n.*1048576 x 1048576"),
    "check sum": (_patched(30, b"\x00"), r"b'IHDR' whose check sum is wrong"),
    "cut off": (WHOLE[:-20], "cut off"),
    "no end": (WHOLE[:-12], "no end"),
    "no header": (SIGNATURE + chunk(b"IDAT", b"") + chunk(b"IEND", b""), "no header"),
    "filter": (png(GREY, 7), "unknown filter 7"),
    "few pixels": (_with_data(zlib.compress(bytes(14))), r"14 bytes of pixels where the header says 15"),
    "many pixels": (_with_data(zlib.compress(bytes(16))), "more bytes of pixels"),
    "no zlib": (_with_data(b"12345"), "cannot be unpacked"),
    "no palette": (png(GREY, colour=3), "a palette that is missing"),
    "short palette": (png(GREY, colour=3, before=chunk(b"PLTE", bytes(6))), "too short"),
    "must understand": (png(GREY, before=chunk(b"CgBI", b"")), "must be understood"),
    "transparency": (png(GREY, before=chunk(b"tRNS", b"\x00")), "transparent colour"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_refused_and_named(name: str) -> None:
    data, text = BROKEN[name]
    with pytest.raises(ArrayError, match=rf"(?s)holiday\.png.*{text}"):
        read_png(data, source="holiday.png")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(8, len(WHOLE) - 1), st.binary(min_size=1, max_size=6))
def test_damage_is_an_error_of_ours_or_harmless(at: int, damage: bytes) -> None:
    data: Any = _patched(at, damage)[: len(WHOLE)]
    with contextlib.suppress(ArrayError):
        np.testing.assert_array_equal(read_png(data), GREY)
