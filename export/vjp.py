"""The product of a cotangent with a network's Jacobian, v^T d out / d x, as a graph beside the network's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from onnxscript import ir

from dpmrt.engines import Network, TensorSpec
from dpmrt.errors import ExportError, OptionError
from dpmrt.export.closeness import close_to_torch, relative_error
from dpmrt.export.gradients import Backward, runner, trace_backward
from dpmrt.export.gradients.trace import TRACED_BATCH
from dpmrt.export.interfaces import Interface
from dpmrt.export.onnx_files import EXTERNAL_ABOVE, small_sizes, write_onnx
from dpmrt.export.sources import Source

FOLDER = "vjp"
#: the roles that the graph has beside those of the network
COTANGENT, PRODUCT, OUTPUT = "cotangent", "vjp", "out_sample"
#: the norm of the difference from torch over the norm, for the product and for the output
TOLERANCE = 1e-4

_CHECKED = (1, 2, 5)


class VectorJacobian(torch.nn.Module):  # type: ignore[misc]
    """(inputs, cotangent) -> (v^T J, output), where J is the Jacobian of the output's first channels in the state.

    These are as many as the state has: a variance that was learned, and channels that are a condition, are left out.
    """

    def __init__(self, model: Any, interface: Interface) -> None:
        super().__init__()
        self.model = model
        self._interface = interface
        self._channels = interface.state_shape()[interface.channel_axis - 1]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the product, in the state's shape, and all that the network gives."""
        *given, cotangent = tensors
        inputs = dict(zip((entry.role for entry in self._interface.inputs), given))
        with torch.enable_grad():
            x = inputs["sample"].detach().requires_grad_()
            out = self._interface.call(self.model, {**inputs, "sample": x})
            (product,) = torch.autograd.grad(out, x, self._padded(cotangent, out))
        return self._own(product), out.detach()

    def _padded(self, cotangent: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        # Not the output narrowed: the gradient of that scatters, which TensorRT does not like.
        axis = self._interface.channel_axis
        rest = out.shape[axis] - self._channels
        if not rest:
            return cotangent
        return torch.cat([cotangent, torch.zeros_like(out.narrow(axis, self._channels, rest))], dim=axis)

    def _own(self, product: torch.Tensor) -> torch.Tensor:
        axis = self._interface.channel_axis
        return product if product.shape[axis] == self._channels else product.narrow(axis, 0, self._channels)


def check_vjp(source: Source, precision: str, folded: bool) -> None:
    """Refuse, before anything is traced, a network whose product cannot be a graph."""
    if precision != "fp32" or folded:
        raise OptionError(
            "the vector-Jacobian product is exported in fp32 for the network as it is",
            got=f"precision {precision}" + ", with folded guidance" * folded,
            expected="fp32, with no guidance folded in",
            fix="leave out --precision and --fold-guidance (precision, fold), or --vjp (vjp)",
        )
    free = [name for name in source.interface.axes if name != "batch"]
    if free:
        usual = source.interface.axes
        raise OptionError(
            "the vector-Jacobian product is exported for one size of the samples",
            got=f"open axes: {', '.join(free)}",
            expected="every axis but the batch fixed",
            fix=" ".join(f"--axis {name}={usual[name].axis.opt}" for name in free),
        )


def export_vjp(source: Source, folder: str | Path, *, external_above: int = EXTERNAL_ABOVE) -> Network:
    """Write `vjp/model.onnx` into a bundle's folder, and return its description.

    It is held against torch.autograd at several batches; a relative error above TOLERANCE, or whatever else fails,
    leaves no files.

        export_vjp(load_source("engines/checkpoints/digits-unet"), scratch)
    """
    interface = source.interface
    graph = trace_vjp(source)
    target = Path(folder) / FOLDER
    if target.exists():
        raise ExportError("a vector-Jacobian graph is there already", got=target, expected="a bundle without one")
    target.mkdir()
    try:
        written = write_onnx(graph, target, external_above=external_above)
        compare_vjp(written.graph, source)
    except BaseException:
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
        raise
    inputs, (output,) = interface.specs()
    state = TensorSpec(COTANGENT, COTANGENT, "float32", _state_shape(interface))
    return Network(
        path=f"{FOLDER}/{written.graph.name}",
        inputs=(*inputs, state),
        outputs=(TensorSpec(PRODUCT, PRODUCT, "float32", state.shape), output),
        data=(f"{FOLDER}/{written.data.name}",) if written.data else (),
        axes=interface.free(),
        channel_axis=interface.channel_axis,
    )


def trace_vjp(source: Source) -> ir.Model:
    """Trace the product and the output to one ONNX graph with a free batch axis."""
    interface = source.interface
    batch = interface.axes["batch"].axis if "batch" in interface.axes else None
    size = TRACED_BATCH if batch is None or batch.takes(TRACED_BATCH) else batch.opt
    inputs = examples(interface, size)
    plain = interface.examples(**{"batch": size} if batch else {})
    return trace_backward(
        Backward(
            VectorJacobian(source.model, interface).eval(),
            inputs,
            frozenset(name for name, tensor in inputs.items() if batch is not None and tensor.ndim > 0),
            (PRODUCT, OUTPUT),
            network=source.model,
            call=lambda: interface.call(source.model, plain),
            what="network",
        )
    )


def compare_vjp(path: Path, source: Source) -> float:
    """Return the largest relative error of the graph against torch.autograd; refuse one above TOLERANCE."""
    run = runner(path)
    module = VectorJacobian(source.model, source.interface)
    worst = 0.0
    for seed, wanted in enumerate(_CHECKED):
        inputs = examples(source.interface, small_sizes(source.interface, wanted).get("batch", 0), seed=seed)
        for name, got, expected in zip((PRODUCT, OUTPUT), run(inputs), module(*inputs.values())):
            worst = max(
                worst,
                close_to_torch(
                    relative_error(got, expected.numpy()),
                    TOLERANCE,
                    "the exported vector-Jacobian product is not that of torch",
                    where=f"in {name} at batch {len(got)}",
                ),
            )
    return worst


def examples(interface: Interface, batch: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return inputs and a cotangent, by name; `batch` counts where that axis is open."""
    inputs = interface.examples(seed=seed, **{"batch": batch} if "batch" in interface.axes else {})
    generator = torch.Generator().manual_seed(1000 + seed)
    shape = (len(inputs["sample"]), *interface.state_shape())
    return {**inputs, COTANGENT: torch.randn(shape, generator=generator)}


def _state_shape(interface: Interface) -> tuple[int | str, ...]:
    sample = interface.input("sample")
    assert sample is not None
    return (sample.shape[0], *interface.state_shape())
