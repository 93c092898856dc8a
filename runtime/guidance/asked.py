"""What a caller asks of classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

Schedule: TypeAlias = "str | Sequence[float] | NDArray[Any] | Callable[[float], Any]"


@dataclass(frozen=True, eq=False)
class Guidance:
    """Classifier-free guidance in all its forms: `null + scale * (given - null)` where and as strongly as is said.

    `scale` is one number or one for each sample; left out, the bundle's.
    `interval` is where guidance acts, (low, high) with both included; elsewhere the scale is 1 (Kynkaanniemi et al.
    2024).
    `schedule` makes the scale change on the way: "linear" and "cosine" rise from 1 at the first call to `scale` at
    the last; an array has one scale for each network call, (calls,) or (calls, batch); a function gives it.
    `unit` is what the interval's bounds and the function's argument are: "progress", 0 at the first network call and
    1 at the last; "time", the network's; or "sigma", the noise-to-signal ratio sigma / alpha.
    An inversion counts its calls backwards, so that what samples also inverts.
    `rescale`, 0 to 1, brings each sample's deviation back to that of the conditioned output (Lin et al. 2023,
    section 3.4).

    >>> from dpmrt.runtime import Guidance, load
    >>> with load("digits") as pipeline:
    ...     asked = Guidance(3.0, interval=(0.2, 0.8), rescale=0.7)
    ...     pipeline.sample(2, label=4, steps=5, guidance=asked).shape
    (2, 1, 16, 16)
    """

    scale: float | Sequence[float] | NDArray[Any] | None = None
    interval: tuple[float, float] | None = None
    schedule: Schedule | None = None
    rescale: float = 0.0
    unit: str = "progress"


#: what `Pipeline.sample(guidance=...)` takes
Asked: TypeAlias = "float | Sequence[float] | NDArray[Any] | Guidance | None"
