"""The options by which a solver limits its prediction of x0, turned into an instruction."""

from __future__ import annotations

import math

from dpmrt.errors import OptionError
from dpmrt.solvers_np.plans.instructions import Clip, DynamicThreshold, Instruction


def limit_x0(
    clip: float | None = None, threshold: float | None = None, threshold_max: float = 1.0
) -> Instruction | None:
    """Return the instruction for `clip` (a limit) or `threshold` (a ratio), or None for neither."""
    if clip is not None and threshold is not None:
        raise OptionError(
            "clip and threshold exclude each other",
            got=f"clip={clip}, threshold={threshold}",
            expected="one of them",
            fix="leave out clip: thresholding to a maximum of 1 clips too",
        )
    if clip is not None:
        if not (math.isfinite(clip) and clip > 0):
            raise OptionError("clip must be a positive limit", got=clip)
        return Clip(float(clip))
    if threshold is not None:
        if not 0 < threshold <= 1:
            raise OptionError("threshold must be a ratio", got=threshold, expected="0 < threshold <= 1, as 0.995")
        if not (math.isfinite(threshold_max) and threshold_max >= 1):
            raise OptionError("threshold_max must be at least 1", got=threshold_max)
        return DynamicThreshold(float(threshold), float(threshold_max))
    return None
