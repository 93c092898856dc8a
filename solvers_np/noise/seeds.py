"""What a seed may be."""

from __future__ import annotations

from dpmrt.errors import OptionError


def check_seed(seed: int) -> int:
    """Return the seed as an int of 64 bits without sign, or say what was expected."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed.__index__() < 1 << 64:
        raise OptionError("seed must be a whole number", got=repr(seed), expected="0 to 2**64 - 1")
    return seed.__index__()
