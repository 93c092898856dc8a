"""A network as the manifest describes it, held against the graph, the plan and the batch."""

from __future__ import annotations

import numpy as np

from dpmrt.engines import Network, TensorSpec
from dpmrt.errors import BundleError, OptionError
from dpmrt.runtime.backends.base import Backend, Tensor
from dpmrt.solvers_np import StepPlan


def check_times(network: Network, plan: StepPlan) -> None:
    """Refuse a plan with times between the whole numbers for a network that takes integers."""
    time = next(spec for spec in network.inputs if spec.role == "timestep")
    broken = plan.timesteps[plan.timesteps != np.rint(plan.timesteps)]
    if time.dtype.startswith("int") and broken.size:
        raise OptionError(
            "the network takes whole timesteps, and the plan has others",
            got=f"t = {broken[0]:g}",
            expected=f"whole numbers, as `{time.name}` is {time.dtype}",
            fix="choose a grid of whole timesteps, or export the network again with dpmrt, whose timestep is a float",
        )


def check_network(backend: Backend, network: Network) -> None:
    """Hold what the manifest says about a graph against the graph."""
    for kind, specs, tensors in (
        ("input", network.inputs, backend.inputs),
        ("output", network.outputs, backend.outputs),
    ):
        found = {tensor.name: tensor for tensor in tensors}
        extra = set(found) - {spec.name for spec in specs}
        if extra and kind == "input":
            raise _disagree(f"the manifest lacks the input `{min(extra)}`", found[min(extra)], None)
        for spec in specs:
            tensor = found.get(spec.name)
            if tensor is None:
                raise _disagree(f"the graph has no {kind} `{spec.name}`", ", ".join(sorted(found)), spec)
            if tensor.dtype != spec.dtype or tensor.rank != len(spec.shape) or not _agree(tensor, spec):
                raise _disagree(f"manifest and graph disagree about the {kind} `{spec.name}`", tensor, spec)
            if spec.dtype == "bfloat16":
                raise BundleError(
                    f"NumPy has no bfloat16, which the {kind} `{spec.name}` has",
                    got=tensor,
                    expected="float32 or float16",
                    fix="export the network with float32 inputs and outputs",
                )


def _agree(tensor: Tensor, spec: TensorSpec) -> bool:
    pairs = zip(tensor.shape, spec.shape)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _disagree(what: str, got: object, spec: TensorSpec | None) -> BundleError:
    expected = Tensor(spec.name, spec.dtype, spec.shape) if spec else "the inputs that dpmrt.json lists"
    fix = "export the network again: dpmrt export SOURCE -o BUNDLE"
    return BundleError(what, got=got, expected=expected, fix=fix)


def check_rows(network: Network, batch: int, guided: bool) -> None:
    """Refuse a batch, doubled for guidance or not, that the network's batch axis does not take."""
    rows = 2 * batch if guided else batch
    got = f"batch {batch}" + (", doubled for guidance" * guided)
    for spec in network.inputs:
        if not spec.shape or spec.role in ("timestep", "guidance_scale"):
            continue
        axis = spec.shape[0]
        limits = network.axes.get(axis) if isinstance(axis, str) else None
        if isinstance(axis, int) and axis != rows:
            raise OptionError(
                "the network was exported for one batch size",
                got=got,
                expected=f"{axis} in all",
                fix="export the network again with a free batch axis",
            )
        if limits is not None and not limits.takes(rows):
            raise OptionError(
                "the network does not take a batch of this size",
                got=got,
                expected=f"{axis} = {limits}",
                fix="ask for another batch, or export the network again with wider bounds",
            )
