"""NAME=SIZE on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dpmrt.engines import Axis
from dpmrt.errors import OptionError


def parse_axes(texts: Iterable[str]) -> dict[str, int | Axis | Literal["free"]]:
    """Return the sizes that NAME=SIZE, NAME=free and NAME=MIN:USUAL:MAX stand for.

    >>> parse_axes(["height=96", "width=free"])
    {'height': 96, 'width': 'free'}
    """
    sizes: dict[str, int | Axis | Literal["free"]] = {}
    for text in texts:
        name, _, value = text.partition("=")
        name = name.strip()
        if name in sizes:
            raise OptionError(f"the axis {name} is given twice", got=text, expected="each axis once")
        sizes[name] = _size(text, value.strip())
    return sizes


def _size(text: str, value: str) -> int | Axis | Literal["free"]:
    if value == "free":
        return "free"
    try:
        numbers = [int(part) for part in value.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and numbers[0] > 0:
        return numbers[0]
    if len(numbers) == 3 and 0 < numbers[0] <= numbers[1] <= numbers[2]:
        return Axis(min=numbers[0], opt=numbers[1], max=numbers[2])
    raise OptionError(
        "--axis is no size", got=text, expected="NAME=SIZE, NAME=free or NAME=MIN:USUAL:MAX", fix="--axis height=96"
    )
