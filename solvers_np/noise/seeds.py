"""What a seed may be."""

from __future__ import annotations

import operator

from dpmrt.errors import OptionError
from dpmrt.solvers_np.options import is_whole


def check_seed(seed: int) -> int:
    """Return the seed as an int of 64 bits without sign, or say what was expected."""
    if not is_whole(seed) or not 0 <= operator.index(seed) < 1 << 64:
        raise OptionError("seed must be a whole number", got=repr(seed), expected="0 to 2**64 - 1")
    return operator.index(seed)
