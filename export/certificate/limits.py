"""What passes, by precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dpmrt.engines import CallParity, Limits, PrecisionName
from dpmrt.errors import OptionError
from dpmrt.export.certificate.cases import Case

#: the one table of tolerances; docs/verify.md explains it
LIMITS: Mapping[PrecisionName, Limits] = {
    "fp32": Limits(call=1e-5, drift=1e-4, psnr=None),
    "fp16": Limits(call=5e-2, drift=None, psnr=40.0, call_rms=1e-2),
    "bf16": Limits(call=4e-1, drift=None, psnr=30.0, call_rms=8e-2),
}


def limits_of(
    precision: PrecisionName, tolerance: float | None = None, *, folded_scale: float | None = None
) -> Limits:
    """Return the limits of a precision, with `tolerance` in place of its relative drift.

    Guidance in the graph, w * a - (w - 1) * b at the scale w, makes the rounding of its two halves that much larger,
    and the limits of a call with it.

    >>> limits_of("fp16", 0.05)
    Limits(call=0.05, drift=0.05, psnr=40.0, call_rms=0.01)
    >>> limits_of("bf16", folded_scale=3.0).call_rms
    0.4
    """
    usual = LIMITS[precision]
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise OptionError(
            "tolerance is out of range",
            got=tolerance,
            expected="a finite number above 0",
            fix="pass --tolerance 1e-4 (tolerance=1e-4 in Python)",
        )
    larger = 1.0 if folded_scale is None else max(1.0, abs(folded_scale) + abs(folded_scale - 1))
    call, call_rms = (None if limit is None else limit * larger for limit in (usual.call, usual.call_rms))
    return Limits(call, usual.drift if tolerance is None else tolerance, usual.psnr, call_rms)


def beyond(call: CallParity, limits: Limits) -> list[tuple[float, float, str]]:
    """Return what of a call is beyond its limit: the error, the limit, and what the error is."""
    judged = (
        (call.max_relative, limits.call, "an error of"),
        (call.rms_relative, limits.call_rms, "errors whose RMS is"),
    )
    return [(e, limit, what) for e, limit, what in judged if e is not None and limit is not None and not e <= limit]


def failures_of(cases: Sequence[Case], calls: Sequence[CallParity], limits: Limits) -> list[str]:
    """Return in words what of the calls is beyond the limits."""
    lines = []
    for number, (case, call) in enumerate(zip(cases, calls), start=1):
        if call.max_relative is None:
            lines.append(f"call {number} ({case}): the bundle gave NaN or infinity")
        for error, limit, what in beyond(call, limits):
            lines.append(f"call {number} ({case}): {what} {error:.1e} of the RMS, limit {limit:.0e}")
    return lines
