"""Many times in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured so many times, in seconds."""

    runs: int
    mean: float
    p50: float
    p95: float
    p99: float
    min: float
    max: float


def summarise(times: Sequence[float]) -> Summary:
    """Return the summary of at least one time.

    >>> summarise([3.0, 1.0, 2.0]).p50
    2.0
    """
    ordered = sorted(times)
    return Summary(
        runs=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        p50=percentile(ordered, 50),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        min=ordered[0],
        max=ordered[-1],
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the value below which so many per cent of the rising values lie, on a line between neighbours.

    >>> percentile([1.0, 2.0, 4.0], 75)
    3.0
    """
    place = (len(ordered) - 1) * percent / 100
    low = min(math.floor(place), len(ordered) - 1)
    high = min(low + 1, len(ordered) - 1)
    between = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    # Rounding may lead past the neighbours.
    return min(max(between, ordered[low]), ordered[high])


def median(values: Sequence[float]) -> float:
    """Return the middle value.

    >>> median([5.0, 1.0, 3.0, 2.0])
    2.5
    """
    return percentile(sorted(values), 50)
