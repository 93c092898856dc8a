"""The weights of a network, read one tensor at a time, so that no more than one is in memory twice."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from onnxscript import ir
from safetensors import SafetensorError, safe_open

from dpmrt.engines import Origin, Origins, Step
from dpmrt.errors import ExportError

#: what a weight is stored as
NUMPY_TYPES: dict[ir.DataType, Any] = {
    ir.DataType.FLOAT: np.dtype(np.float32),
    ir.DataType.FLOAT16: np.dtype(np.float16),
    ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
_TORCH_TYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
}
_BITS = {2: torch.int16, 4: torch.int32}

_OLD_ATTENTION = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
_INITIALISERS = [name for name in dir(torch.nn.init) if name.endswith("_") and not name.startswith("_")]


class WeightFiles(Mapping[str, torch.Tensor]):
    """The tensors of safetensors files, read when asked for.

    A file is open only while a tensor is read, since what is mapped from it counts as memory that the process holds.
    """

    def __init__(self, files: list[Path]) -> None:
        self._places: dict[str, tuple[Path, str]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in files:
            handle = _open(path)
            for name in handle.keys():  # noqa: SIM118
                if name in self._places:
                    raise ExportError("two shards hold the same tensor", got=f"{name}, again in {path.name}")
                self._places[name] = path, name
                self._shapes[name] = tuple(handle.get_slice(name).get_shape())

    def __getitem__(self, name: str) -> torch.Tensor:
        path, stored = self._places[name]
        return _open(path).get_tensor(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._shapes[name]

    def rename(self, names: Mapping[str, str]) -> None:
        """Let tensors be known by other names, given as new: old."""
        for new, old in names.items():
            self._places[new], self._shapes[new] = self._places.pop(old), self._shapes.pop(old)


class LazyWeight(ir.LazyTensor):  # type: ignore[misc]
    """A weight of a graph that is read, laid out and converted when it is written, and not kept.

    `among` names all tensors that the network reads, of which some may be in no weight any more.
    """

    def __init__(
        self,
        origin: Origin,
        read: Callable[[], torch.Tensor],
        shape: tuple[int, ...],
        dtype: ir.DataType,
        among: frozenset[str],
    ) -> None:
        self.origin, self.read, self.among = origin, read, among
        super().__init__(self._evaluate, dtype, ir.Shape(shape), name=origin.tensor, cache=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The lengths of its axes."""
        return tuple(int(n) for n in self.shape)

    def _evaluate(self) -> ir.Tensor:
        tensor = self.read().detach()
        # By way of fp32, as refitting rounds them.
        stored = (tensor.float() if tensor.dtype == torch.float64 else tensor).to(_TORCH_TYPES[self.dtype])
        # As integers of that width numpy knows them all; and torch turns a matrix several times as fast.
        bits = self.origin.apply(stored.view(_BITS[stored.itemsize]).numpy())
        array = torch.from_numpy(bits).contiguous().numpy().view(NUMPY_TYPES[self.dtype])
        return ir.Tensor(array, dtype=self.dtype, name=self.name)

    @functools.cached_property
    def largest(self) -> float:
        """The largest magnitude among its numbers, which no change of layout alters; read once."""
        tensor = self.read()
        return float(torch.stack(tensor.aminmax()).abs().max()) if tensor.numel() else 0.0

    def changed(self, steps: tuple[Step, ...], shape: tuple[int, ...]) -> LazyWeight:
        """Return this weight with its layout changed further, as by a transposition."""
        origin = Origin(self.origin.tensor, (*self.origin.steps, *steps))
        return LazyWeight(origin, self.read, shape, self.dtype, self.among)

    def astype(self, dtype: ir.DataType) -> LazyWeight:
        """Return this weight stored in another type."""
        return LazyWeight(self.origin, self.read, self.sizes, dtype, self.among)


def origins(graph: ir.Model) -> Origins:
    """Return what tensors of the checkpoint the weights of a traced graph are."""
    named = sorted((name, value.const_value) for name, value in graph.graph.initializers.items())
    weights = {name: tensor for name, tensor in named if isinstance(tensor, LazyWeight)}
    kept = {tensor.origin.tensor for tensor in weights.values()}
    read = frozenset().union(*(tensor.among for tensor in weights.values()))
    return Origins({name: tensor.origin for name, tensor in weights.items()}, tuple(sorted(read - kept)))


@contextlib.contextmanager
def empty_parameters() -> Iterator[None]:
    """Let networks be made without filling their parameters: memory that is never written to takes none."""
    before = {name: getattr(torch.nn.init, name) for name in _INITIALISERS}
    for name in _INITIALISERS:
        setattr(torch.nn.init, name, lambda tensor, *args, **options: tensor)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch.nn.init, name, function)


def check_weights(skeleton: Any, weights: WeightFiles, network: object) -> None:
    """Refuse weights that are not those of the network, before anything is done with them.

    `network` says in errors where the network comes from.
    """
    wanted = skeleton.state_dict()
    weights.rename(_former_names(weights, wanted))
    _refuse("tensors are missing from the weights", wanted.keys() - weights.keys(), network)
    _refuse("the weights hold tensors that the network has not", weights.keys() - wanted.keys(), network)
    _refuse(
        "tensors have another shape than the config says",
        {
            f"{name} {weights.shape(name)} instead of {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if weights.shape(name) != tuple(tensor.shape)
        },
        network,
    )
    for name, tensor in wanted.items():
        found = weights[name]
        if found.is_floating_point() != tensor.is_floating_point():
            _refuse("tensors are not of a floating type", {f"{name} {found.dtype}"}, network)
        if found.is_floating_point() and not _finite(found):
            _refuse("tensors hold NaN or infinity", {name}, network)


def _finite(tensor: torch.Tensor) -> bool:
    # Both ends are NaN where any number is; this reads half precision ten times as fast as isfinite does.
    return tensor.numel() == 0 or bool(torch.stack(tensor.aminmax()).isfinite().all())


def fill(skeleton: Any, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Any:
    """Give a network its weights, in one floating type; what was there is let go."""
    tensors = {
        name: weights[name].to(dtype) if weights[name].is_floating_point() else weights[name]
        for name in skeleton.state_dict()
    }
    skeleton.load_state_dict(tensors, strict=True, assign=True)
    return skeleton.requires_grad_(False)


@contextlib.contextmanager
def widening(skeleton: Any, weights: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """Lend the network with its weights as they are stored, each layer's in fp32 only while it computes."""
    stored = {name: weights[name] for name in skeleton.state_dict()}
    skeleton.load_state_dict(stored, strict=True, assign=True)
    skeleton.requires_grad_(False)
    handles = []

    def widen(module: Any, arguments: object) -> None:
        module.__dict__["_stored"] = {name: tensor.data for name, tensor in _own(module).items()}
        for tensor in _own(module).values():
            tensor.data = tensor.data.float()

    def restore(module: Any, arguments: object, result: object) -> None:
        stored_here = module.__dict__.pop("_stored")
        for name, tensor in _own(module).items():
            tensor.data = stored_here[name]

    # A module that has others below it may read their parameters itself, so that those are narrow again.
    for module in skeleton.modules():
        if _own(module):
            handles += [module.register_forward_pre_hook(widen), module.register_forward_hook(restore)]
    try:
        yield skeleton
    finally:
        for handle in handles:
            handle.remove()
        # What was lent is mapped from its files, and would keep them in memory.
        skeleton.load_state_dict({name: torch.empty_like(t) for name, t in stored.items()}, assign=True)


def _own(module: Any) -> dict[str, torch.Tensor]:
    named = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {name: tensor for name, tensor in named if tensor.is_floating_point()}


def _former_names(weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, str]:
    # Checkpoints from before diffusers 0.15, google/ddpm-* among them, name attention layers otherwise.
    return {
        name: former
        for name in wanted.keys() - weights.keys()
        for new, old in _OLD_ATTENTION.items()
        if new in name and (former := name.replace(new, old)) in weights
    }


def _refuse(what: str, names: set[str], network: object) -> None:
    if names:
        shown = sorted(names)[:3]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        raise ExportError(
            what,
            got=f"{', '.join(shown)}{more}",
            expected=f"the tensors of the network in {network}",
            fix="pass the network and the weights that were saved from it",
        )


def _open(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise ExportError(
            f"{path.name} is no whole safetensors file",
            got=f"{path}, {path.stat().st_size} bytes: {error}",
            expected="the file as it was saved",
            fix="copy or download it again",
        ) from None
