"""How a grid ends: in a step that removes all noise, or at its last level."""

from __future__ import annotations

from dpmrt.solvers_np.options import one_of

FINALS = ("zero", "sigma_min")


def level_count(steps: int, final: str) -> int:
    """Return how many levels a grid spaces: with "zero" one a step, else one more, where the last step ends.

    >>> level_count(4, "zero"), level_count(4, "sigma_min")
    (4, 5)
    """
    one_of("final", final, FINALS)
    return steps if final == "zero" else steps + 1
