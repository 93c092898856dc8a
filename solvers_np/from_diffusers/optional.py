"""Keys that a scheduler class may lack, that may be null, or whose numbers are bounded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.levels import Floats

_MOST = 1e100


def raised(config: SchedulerConfig, key: str) -> bool:
    """Return a flag, false where the class has no such key."""
    return key in config and config.flag(key)


def number_or_none(config: SchedulerConfig, key: str) -> float | None:
    """Return a finite number, or None where the key is null or the class has none."""
    return finite(config, key) if key in config and config[key] is not None else None


def finite(config: SchedulerConfig, key: str) -> float:
    """Return a number that must be finite."""
    value = config.number(key)
    if not math.isfinite(value):
        raise OptionError(f"{config.name}: {key} must be finite", got=repr(value))
    return value


def positive(config: SchedulerConfig, key: str) -> float:
    """Return a number that must be above zero, and whose square is a number still."""
    value = config.number(key)
    if not 0 < value < _MOST:
        raise OptionError(
            f"{config.name}: {key} must be positive", got=repr(value), expected="a finite number above 0"
        )
    return value


def positive_or_none(config: SchedulerConfig, key: str) -> float | None:
    """Return a number above zero, or None where the key is null or the class has none."""
    return None if number_or_none(config, key) is None else positive(config, key)


def array_of(value: object) -> Floats:
    """Return numbers as an array, and an empty one for anything else."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.empty(0)


def row_or_none(config: SchedulerConfig, key: str, count: int) -> Floats | None:
    """Return `count` finite numbers that must fall, or None where the key is null or the class has none."""
    if key not in config or config[key] is None:
        return None
    value: Any = config[key]
    row = array_of(value)
    if row.shape != (count,) or not np.isfinite(row).all():
        raise OptionError(
            f"{config.name}: {key} must be a row of finite numbers",
            got=f"shape {row.shape}",
            expected=f"{count} numbers",
        )
    if not (np.diff(row) < 0).all():
        raise OptionError(f"{config.name}: {key} must fall", got=repr(value), expected="each below the one before")
    return row
