"""What passes, by precision."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dpmrt.engines import Limits, PrecisionName
from dpmrt.errors import OptionError

#: the one table of tolerances; docs/verify.md explains it
LIMITS: Mapping[PrecisionName, Limits] = {
    "fp32": Limits(call=1e-5, drift=1e-4, psnr=None),
    "fp16": Limits(call=2e-2, drift=None, psnr=40.0),
    "bf16": Limits(call=1e-1, drift=None, psnr=30.0),
}


def limits_of(precision: PrecisionName, tolerance: float | None = None) -> Limits:
    """Return the limits of a precision, with `tolerance` in place of its relative drift.

    >>> limits_of("fp16", 0.05)
    Limits(call=0.02, drift=0.05, psnr=40.0)
    """
    usual = LIMITS[precision]
    if tolerance is None:
        return usual
    if not 0 < tolerance < math.inf:
        raise OptionError(
            "tolerance is out of range",
            got=tolerance,
            expected="a finite number above 0",
            fix="pass --tolerance 1e-4 (tolerance=1e-4 in Python)",
        )
    return Limits(usual.call, tolerance, usual.psnr)
