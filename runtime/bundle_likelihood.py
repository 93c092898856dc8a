"""The likelihood of data under a bundle: a request for one, checked, and the network that answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.runtime.asked import sample_shape
from dpmrt.runtime.backends import Backend
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.conditions import LABELS, check_conditions
from dpmrt.runtime.likelihood import Likelihood, check_data, likelihood_of
from dpmrt.runtime.ode.course import Course, refuse_whole_times
from dpmrt.runtime.request import Labels, check_array
from dpmrt.runtime.vjp import NetworkProduct
from dpmrt.solvers_np import Callback
from dpmrt.solvers_np.options import call_with_options


def bundle_likelihood(
    bundle: OpenBundle,
    backend: Backend,
    data: object,
    label: Labels,
    conditions: Mapping[str, Any] | None,
    callback: Callback | None,
    options: Mapping[str, Any],
) -> Likelihood:
    """Return the likelihood of `data` under the network as it is conditioned, without guidance.

    A guided network is the score of no density. `backend` runs the bundle's vector-Jacobian graph.
    """
    network = bundle.manifest.vjp
    assert network is not None
    refuse_whole_times(any(spec.role == "timestep" and "int" in spec.dtype for spec in network.inputs))
    array = check_array("the data", data)
    array = check_data(array, sample_shape(bundle, array if array.ndim > 1 else None))
    if callback is not None and not callable(callback):
        raise OptionError("callback cannot be called", got=repr(callback), expected="a function of a StepEvent")
    labelled = label is not None or LABELS in (conditions or {})
    settled = check_conditions(
        bundle,
        len(array),
        array.shape[1:],
        label=label,
        guidance=1.0 if labelled and bundle.manifest.guidance is not None else None,
        conditions=conditions,
    )
    product = NetworkProduct(bundle, network, backend, array.shape, settled)
    return call_with_options("a likelihood", _settled, options, product, array, bundle.manifest.data_range, callback)


def _settled(
    product: NetworkProduct,
    data: Any,
    data_range: tuple[float, float],
    callback: Callback | None,
    /,
    *,
    method: str = "RK45",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    variable: str | None = None,
    max_calls: int = 10_000,
    probes: int = 1,
    probe: str = "rademacher",
    seed: int = 0,
    levels: int = 256,
    dequantize: bool = False,
    start: float | None = None,
) -> Likelihood:
    return likelihood_of(
        product,
        data,
        course=Course(method, rtol, atol, variable, max_calls),
        data_range=data_range,
        probes=probes,
        probe=probe,
        seed=seed,
        levels=levels,
        dequantize=dequantize,
        start=start,
        callback=callback,
    )
