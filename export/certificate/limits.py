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


def limits_of(
    precision: PrecisionName, tolerance: float | None = None, *, folded_scale: float | None = None
) -> Limits:
    """Return the limits of a precision, with `tolerance` in place of its relative drift.

    Guidance in the graph, w * a - (w - 1) * b at the scale w, makes the rounding of its two halves that much larger,
    and the limit of a call with it.

    >>> limits_of("fp16", 0.05)
    Limits(call=0.02, drift=0.05, psnr=40.0)
    >>> limits_of("bf16", folded_scale=3.0).call
    0.5
    """
    usual = LIMITS[precision]
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise OptionError(
            "tolerance is out of range",
            got=tolerance,
            expected="a finite number above 0",
            fix="pass --tolerance 1e-4 (tolerance=1e-4 in Python)",
        )
    call = usual.call
    if folded_scale is not None and call is not None:
        call *= max(1.0, abs(folded_scale) + abs(folded_scale - 1))
    return Limits(call, usual.drift if tolerance is None else tolerance, usual.psnr)
