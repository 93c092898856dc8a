"""One request for samples, settled: batch, shape, conditions, noise and the state to begin from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.conditions import Conditions, check_conditions
from dpmrt.runtime.request import check_array, check_batch, check_shape, check_x_T
from dpmrt.runtime.sizes import Sizes
from dpmrt.solvers_np import NoiseSource, make_noise

_NOISE, _START = "the initial noise (x_T, --noise)", "the state to start from (start)"


@dataclass(frozen=True)
class Asked:
    """A request that can be honoured. `x` is unit noise, or, where `begun`, the state to begin from as it is."""

    batch: int
    shape: tuple[int, ...]
    conditions: Conditions
    stream: NoiseSource
    x: NDArray[Any]
    begun: bool


def settle_request(
    bundle: OpenBundle,
    batch: int,
    *,
    seed: int | Sequence[int] = 0,
    shape: Sequence[int] | None = None,
    x_T: NDArray[Any] | None = None,
    start: NDArray[Any] | None = None,
    callback: object = None,
    **conditions: Any,
) -> Asked:
    """Check a request for samples, and draw its initial noise unless that is given."""
    if x_T is not None and start is not None:
        raise OptionError(
            "initial noise and a state to start from are given", got="x_T and start", expected="one of them"
        )
    name, value = _NOISE if start is None else _START, x_T if start is None else start
    given = None if value is None else check_array(name, value)
    chosen = sample_shape(bundle, given, shape)
    batch = check_batch(batch, chosen)
    if callback is not None and not callable(callback):
        raise OptionError("callback cannot be called", got=repr(callback), expected="a function of a StepEvent")
    settled = check_conditions(bundle, batch, chosen, **conditions)
    stream = make_noise("torch-cpu", seed)
    x = stream.normal((batch, *chosen)) if given is None else check_x_T(given, batch, chosen, name=name)
    return Asked(batch, chosen, settled, stream, x, start is not None)


def sample_shape(
    bundle: OpenBundle, given: NDArray[Any] | None = None, shape: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return one sample's shape: `shape`, that of the array that is given, or the network's usual one."""
    chosen = _usual_shape(bundle, given) if shape is None else check_shape(shape)
    network = bundle.manifest.unet
    Sizes(network.axes).take("the sample", network.sample_shape, chosen)
    return chosen


def _usual_shape(bundle: OpenBundle, given: NDArray[Any] | None) -> tuple[int, ...]:
    declared = bundle.manifest.unet.sample_shape
    found = None if given is None else given.shape[1:]
    if found is not None and len(found) == len(declared):
        fixed = all(axis == size for axis, size in zip(declared, found) if isinstance(axis, int))
        if fixed and min(found) > 0:
            return found
    shape = bundle.sample_shape
    if shape is None:
        raise ArrayError(
            "the size of the samples is not known",
            got=f"sample{list(declared)} in the graph, and no initial noise",
            expected="`sample_size` in the network's config, a shape, or the initial noise",
            fix="pass the shape of one sample (shape, --shape), or the initial noise (x_T, --noise)",
        )
    return shape
