"""What is sampled while it is timed: labels in turn, and made-up conditions of the right shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import NEGATIVE, TensorSpec
from dpmrt.errors import OptionError
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.conditions import (
    EXTRA,
    LABELS,
    TEXT,
    Conditions,
    check_conditions,
    condition_specs,
    opposed_specs,
)
from dpmrt.runtime.network_checks import check_rows
from dpmrt.runtime.request import check_batch, check_shape
from dpmrt.runtime.sizes import UNNAMED, Sizes

#: how many words a prompt has for CLIP's text encoder, where neither graph nor manifest says
_WORDS = 77


@dataclass(frozen=True)
class Request:
    """One request, as arguments of `Pipeline.sample`, and as the pipeline settles it."""

    batch: int
    shape: tuple[int, ...]
    settled: Conditions
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Return how many rows the network sees at a time."""
        return 2 * self.batch if self.settled.guided else self.batch


def make_request(
    bundle: OpenBundle,
    batch: int,
    *,
    shape: Sequence[int] | None = None,
    guidance: float | None = None,
    seed: int = 0,
) -> Request:
    """Make up a request that the bundle takes; the same arguments give the same one, in any process.

    >>> from dpmrt.runtime import open_bundle
    >>> make_request(open_bundle("digits"), 3).arguments["label"]
    [0, 1, 2]
    """
    network, sizes = bundle.manifest.unet, _shape(bundle, shape)
    batch = check_batch(batch, sizes)
    Sizes(network.axes).take("the sample", network.sample_shape, sizes)
    known = {axis: size for axis, size in zip(network.sample_shape, sizes) if isinstance(axis, str)}
    stream = np.random.default_rng(abs(int(seed)))
    given: dict[str, NDArray[Any]] = {}
    away: dict[str, NDArray[Any]] = {}
    label: list[int] | None = None
    taken = condition_specs(network, sizes)
    opposed = opposed_specs(network, taken)
    guided = network.folded_guidance or guidance not in (None, 1.0)
    for role, spec in taken.items():
        if role == LABELS and "int" in spec.dtype and len(spec.shape) == 1:
            label = [row % (bundle.classes or 1) for row in range(batch)]
            continue
        lengths = [batch if k == 0 else _length(bundle, spec, axis, known) for k, axis in enumerate(spec.shape)]
        given[role] = _draw(stream, spec, lengths)
        if guided and role in opposed and role != EXTRA:
            away[role] = _draw(stream, spec, lengths)
    arguments = {"label": label, "guidance": guidance, "conditions": given or None, "negative": away or None}
    settled = check_conditions(bundle, batch, sizes, **arguments)  # type: ignore[arg-type]
    check_rows(network, batch, settled.guided)
    return Request(batch, sizes, settled, {"batch": batch, "seed": seed, "shape": sizes, **arguments})


def _shape(bundle: OpenBundle, shape: Sequence[int] | None) -> tuple[int, ...]:
    if shape is not None:
        return check_shape(shape)
    if bundle.sample_shape is None:
        raise OptionError(
            "the size of the samples is not known",
            got=f"sample{list(bundle.manifest.unet.sample_shape)} in the graph",
            expected="`sample_size` in the network's config, or a shape",
            fix="pass the shape of one sample: --shape 4,64,64 (shape=(4, 64, 64) in Python)",
        )
    return bundle.sample_shape


def _length(bundle: OpenBundle, spec: TensorSpec, axis: int | str, known: dict[str, int]) -> int:
    if isinstance(axis, int):
        return axis
    if axis in known and axis not in UNNAMED:
        return known[axis]
    limits = bundle.manifest.unet.axes.get(axis)
    if limits is not None:
        return limits.opt
    if spec.role.removeprefix(NEGATIVE) == TEXT:
        return _WORDS
    raise OptionError(
        f"the size of the condition {spec.role} is not known",
        got=f"{spec.role}{list(spec.shape)} in the graph",
        expected=f"a usual size of `{axis}` in the manifest",
        fix="export the network again with dpmrt, which writes it down",
    )


def _draw(stream: np.random.Generator, spec: TensorSpec, lengths: Sequence[int]) -> NDArray[Any]:
    if "int" in spec.dtype:
        return np.zeros(lengths, spec.dtype)
    return stream.standard_normal(lengths).astype(spec.dtype)
