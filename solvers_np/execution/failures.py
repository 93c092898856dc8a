"""What the executors say when numbers stop being finite: at which call, and where it began."""

from __future__ import annotations

from typing import Literal

from dpmrt.errors import NonFiniteError

Culprit = Literal["network", "second", "noise", "state", "hook", "score"]


def not_finite(culprit: Culprit, *, call: int, calls: int, t: float) -> NonFiniteError:
    """Return the error for what was found not finite at the call counted from one."""
    where = f"call {call} of {calls}, t = {t:g}"
    if culprit == "network":
        return NonFiniteError(
            "the network returned NaN or infinity",
            got=where,
            expected="finite numbers",
            fix="check the network's precision (half may overflow; try float32), or lower the guidance scale",
        )
    if culprit == "second":
        return NonFiniteError(
            "the second part of the network's output makes no variance",
            got=where,
            expected="finite numbers, none below zero where they are the variance itself",
            fix="check variance_type against the network, and the network's precision",
        )
    if culprit == "score":
        return NonFiniteError(
            "a Langevin corrector cannot set its step by the norm of the score",
            got=f"a norm of zero, or beyond what numbers hold: {where}",
            expected="a score with a finite norm above zero",
            fix="check the network's output; corrector='annealed-langevin' has steps that measure nothing",
        )
    if culprit == "noise":
        return NonFiniteError("the noise source gave NaN or infinity", got=where, expected="finite numbers")
    if culprit == "hook":
        return NonFiniteError(
            "a hook left NaN or infinity behind",
            got=where,
            expected="finite numbers",
            fix="check what the hook divides by, and its scale",
        )
    return NonFiniteError(
        "the state became NaN or infinite",
        got=where,
        expected="finite numbers",
        fix="check the network's output range and the prediction type; try more steps or less guidance",
    )
