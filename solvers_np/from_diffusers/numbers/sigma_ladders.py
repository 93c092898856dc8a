"""Ladders of sigmas in place of a spacing of times, and the times at which the table reaches them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.optional import raised
from dpmrt.solvers_np.grids.ladders import LADDERS
from dpmrt.solvers_np.levels import Floats

LADDER_KEYS: dict[str, Any] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_NAMES = {
    "use_karras_sigmas": "karras",
    "use_lu_lambdas": "lu",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}
#: a time this near to a whole one is that one, and what is left is rounding
_WHOLE = 1e-8


def ladder_of(config: SchedulerConfig) -> str | None:
    """Return the one key that asks for a ladder, or None; two at once are refused."""
    asked = [key for key in _NAMES if raised(config, key)]
    if len(asked) > 1:
        raise OptionError(
            f"{config.name}: only one ladder of sigmas can be used",
            got=" and ".join(asked),
            expected="one of them true",
        )
    return asked[0] if asked else None


def climb_down(key: str, high: float, low: float, steps: int) -> Floats:
    """Return the sigmas of a ladder from `high` to `low`; a single one is `high`, whatever is below."""
    return LADDERS[_NAMES[key]](high, low, steps) if steps > 1 else np.array([high])


def climb_up(key: str, low: float, high: float, steps: int) -> Floats:
    """Return the sigmas of a ladder from `low` to `high`; a single one is `low`."""
    return climb_down(key, high, low, steps)[::-1] if steps > 1 else np.array([low])


def times_of(sigmas: Floats, ratios: Floats) -> Floats:
    """Return the times at which the table of `ratios` reaches `sigmas`, linear in log sigma, held at both ends.

    Where the table turns back, as a rescaled one may at its end, the last crossing counts.
    """
    table, logs = np.log(ratios), np.log(np.maximum(sigmas, 1e-10))
    least_after = np.minimum.accumulate(table[::-1])[::-1]
    low = np.clip(np.searchsorted(least_after, logs, side="right") - 1, 0, len(table) - 2)
    weight = np.clip((table[low] - logs) / (table[low] - table[low + 1]), 0, 1)
    times = (1 - weight) * low + weight * (low + 1)
    whole = np.round(times)
    return np.asarray(np.where(np.abs(times - whole) < _WHOLE, whole, times))
