"""Pictures read: PNG of eight bits by a reader of its own, and pixels mapped to a bundle's data range."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError

Pixels = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: colour types, with the channels that they store
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3
_MOST_PIXELS = 100_000_000
_CONVERT = "convert it to a PNG of 8 bits a channel, not interlaced"


def read_png(data: bytes, *, source: str = "the picture") -> Pixels:
    """Return the pixels of a PNG as (height, width, channels): 1 or 3 channels, and one more where there is alpha.

    Grey, RGB and palettes of eight bits, with or without alpha, not interlaced; what else PNG knows is refused.

    >>> import io
    >>> from dpmrt.runtime.images import write_png
    >>> stream = io.BytesIO()
    >>> write_png(stream, np.arange(6, dtype=np.uint8).reshape(2, 3, 1))
    >>> read_png(stream.getvalue())[..., 0].tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    if not data.startswith(_SIGNATURE):
        raise ArrayError(f"{source} is no PNG", got=repr(data[:8]), expected=repr(_SIGNATURE), fix=_CONVERT)
    parts: dict[bytes, bytes] = {}
    packed = bytearray()
    for kind, body in _chunks(data, source):
        if kind == b"IDAT":
            packed += body
        elif kind == b"IEND":
            break
        elif kind[0] < 97 and kind not in (b"IHDR", b"PLTE"):
            raise _broken(source, f"a chunk {kind!r} that must be understood, and is not")
        else:
            parts.setdefault(kind, body)
    else:
        raise _broken(source, "no end")
    width, height, colour = _header(parts.get(b"IHDR", b""), source)
    channels = _CHANNELS[colour]
    lines = _unfiltered(_inflated(bytes(packed), height * (1 + width * channels), source), height, channels, source)
    pixels = lines.reshape(height, width, channels)
    if colour == _PALETTE:
        return _painted(pixels[..., 0], parts, source)
    if colour in (0, 2) and b"tRNS" in parts:
        if len(parts[b"tRNS"]) != 2 * channels:
            raise _broken(source, "a transparent colour of the wrong size")
        clear = np.frombuffer(parts[b"tRNS"], ">u2")
        alpha = np.where((pixels == clear).all(axis=-1), 0, 255).astype(np.uint8)
        return np.concatenate([pixels, alpha[..., None]], axis=-1)
    return pixels


def _chunks(data: bytes, source: str) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(data):
        if at + 12 > len(data):
            raise _broken(source, "a chunk that is cut off")
        (size,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if len(body) < size or at + 12 + size > len(data):
            raise _broken(source, f"a chunk {kind!r} that is cut off")
        (check,) = struct.unpack_from(">I", data, at + 8 + size)
        if check != zlib.crc32(kind + body):
            raise _broken(source, f"a chunk {kind!r} whose check sum is wrong")
        yield kind, body
        at += 12 + size


def _header(body: bytes, source: str) -> tuple[int, int, int]:
    if len(body) != 13:
        raise _broken(source, "no header")
    width, height, depth, colour, method, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if colour not in _CHANNELS or method or filtering or interlace > 1 or not width or not height:
        raise _broken(source, f"a header that PNG does not know: {width} x {height}, colour type {colour}")
    if depth != 8 or interlace:
        raise ArrayError(
            f"{source} is of a kind of PNG that is not read here",
            got=f"{depth} bits a channel, {'' if interlace else 'not '}interlaced",
            expected="8 bits a channel, not interlaced",
            fix=_CONVERT,
        )
    if width * height > _MOST_PIXELS:
        raise ArrayError(
            f"{source} is too large",
            got=f"{width} x {height} pixels",
            expected=f"at most {_MOST_PIXELS // 1_000_000} megapixels",
        )
    return width, height, colour


def _inflated(packed: bytes, size: int, source: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(packed, size)
        more = unpacker.decompress(unpacker.unconsumed_tail, 1) if len(raw) == size else b""
    except zlib.error as error:
        raise _broken(source, f"data that cannot be unpacked: {error}") from None
    if len(raw) != size or more:
        raise _broken(source, f"{'more' if more else len(raw)} bytes of pixels where the header says {size}")
    return raw


def _unfiltered(raw: bytes, height: int, channels: int, source: str) -> Pixels:
    lines = np.frombuffer(raw, np.uint8).reshape(height, -1)
    kinds, lines = lines[:, 0], lines[:, 1:].copy()
    if kinds.max(initial=0) > 4:
        raise _broken(source, f"an unknown filter {int(kinds.max())}")
    above = np.zeros(lines.shape[1], np.uint8)
    for line, kind in zip(lines, kinds.tolist()):
        if kind == 1:
            # sums wrap around at 256, as the filter means them to
            line[...] = np.cumsum(line.reshape(-1, channels), axis=0, dtype=np.uint8).ravel()
        elif kind == 2:
            line += above
        elif kind > 2:
            line[...] = np.frombuffer(_stepwise(line.tolist(), above.tolist(), channels, kind == 4), np.uint8)
        above = line
    return lines


def _stepwise(line: list[int], above: list[int], channels: int, paeth: bool) -> bytes:
    """Undo the filters that look to the left and above at once: Average, or Paeth."""
    for i, value in enumerate(line):
        left, corner = (line[i - channels], above[i - channels]) if i >= channels else (0, 0)
        line[i] = (value + (_paeth(left, above[i], corner) if paeth else (left + above[i]) // 2)) & 255
    return bytes(line)


def _paeth(left: int, above: int, corner: int) -> int:
    estimate = left + above - corner
    a, b, c = abs(estimate - left), abs(estimate - above), abs(estimate - corner)
    return left if a <= b and a <= c else above if b <= c else corner


def _painted(index: NDArray[np.uint8], parts: dict[bytes, bytes], source: str) -> Pixels:
    palette = parts.get(b"PLTE", b"")
    if not palette or len(palette) % 3 or int(index.max()) >= len(palette) // 3:
        raise _broken(source, "a palette that is missing or too short")
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    if b"tRNS" in parts:
        alpha = np.full((len(colours), 1), 255, np.uint8)
        given = np.frombuffer(parts[b"tRNS"][: len(colours)], np.uint8)
        alpha[: len(given), 0] = given
        colours = np.concatenate([colours, alpha], axis=1)
    return colours[index]


def _broken(source: str, what: str) -> ArrayError:
    return ArrayError(f"{source} is a broken PNG", got=what, expected="a whole file", fix="write it again")
