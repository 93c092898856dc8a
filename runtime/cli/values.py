"""KEY=VALUE on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from dpmrt.errors import OptionError

_WORDS = {"true": True, "false": False, "none": None, "null": None}


def parse_pairs(texts: Iterable[str], *, what: str = "an option of the solver") -> dict[str, Any]:
    """Return the pairs that KEY=VALUE texts stand for; a key may come once.

    >>> parse_pairs(["order=2", "grid=karras", "clip=none"])
    {'order': 2, 'grid': 'karras', 'clip': None}
    """
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not key or not equals:
            raise OptionError(f"{what} has no value", got=text, expected="KEY=VALUE", fix="order=2")
        if key in options:
            raise OptionError(f"{key} is given twice", got=text, expected="each option once")
        options[key] = parse_value(value.strip())
    return options


def parse_value(text: str) -> Any:
    """Return the number, word or list that a text spells, or else the text.

    >>> parse_value("0.5"), parse_value("[999, 500, 1]")
    (0.5, [999, 500, 1])
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if text.startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Return the shape that a text spells, or None for none.

    >>> parse_shape("4,64,96")
    (4, 64, 96)
    """
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            "--shape is no shape of a sample", got=repr(text), expected="whole numbers, as --shape 4,64,96"
        ) from None


def parse_pair(flag: str, text: str, expected: str) -> tuple[int, int]:
    """Return two whole numbers that a comma parts.

    >>> parse_pair("--repaint", "5,10", "JUMP,TIMES")
    (5, 10)
    """
    try:
        first, second = (int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"{flag} is not understood", got=repr(text), expected=expected) from None
    return first, second
