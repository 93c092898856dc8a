"""`weights.json` beside a graph: which tensor of the checkpoint each of its weights is, and how it was laid out anew.

With it an engine takes the weights of another checkpoint of the same network, with no torch and no other export.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from numpy.typing import NDArray

from dpmrt.engines.json_file import write_json
from dpmrt.errors import BundleError

ORIGINS_NAME = "weights.json"
ORIGINS_VERSION: Literal[1] = 1


class Turned(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="transpose", tag_field="do"):
    """The axes in another order."""

    order: tuple[int, ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array so laid out."""
        return array.transpose(self.order)


class Shaped(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="reshape", tag_field="do"):
    """The same numbers, in the same order, in another shape."""

    shape: tuple[int, ...]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array so laid out."""
        return array.reshape(self.shape)


Step = Turned | Shaped


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The tensor of the checkpoint that a weight is, and what was done to its layout, in order.

    >>> import numpy as np
    >>> Origin("proj.weight", (Turned((1, 0)),)).apply(np.zeros((2, 3))).shape
    (3, 2)
    """

    tensor: str
    steps: tuple[Step, ...] = ()

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a tensor of the checkpoint as the graph has it, in the type that it has."""
        for step in self.steps:
            array = step.apply(array)
        return array


class Origins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The origin of each weight by its name in the graph, and the tensors that no weight of the graph is any more.

    Those were computed with when the network was exported, so that no other checkpoint can put its own there.
    """

    weights: dict[str, Origin]
    merged: tuple[str, ...] = ()
    format: Literal["dpmrt-weights"] = "dpmrt-weights"
    version: Literal[1] = ORIGINS_VERSION


def write_origins(graph: Path, origins: Origins) -> Path:
    """Write the origins of a graph's weights into the file beside it."""
    return write_json(graph.with_name(ORIGINS_NAME), origins)


def read_origins(graph: Path) -> Origins | None:
    """Return the origins of a graph's weights; None where the bundle carries none, as others' bundles do not."""
    path = graph.with_name(ORIGINS_NAME)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{ORIGINS_NAME} cannot be read", got=error, expected="a readable file") from None
    try:
        return msgspec.json.decode(data, type=Origins)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BundleError(
            f"{ORIGINS_NAME} is no list of weights",
            got=f"{path}: {error}",
            expected=f"what dpmrt wrote, in version {ORIGINS_VERSION}",
            fix="export the network again: dpmrt export",
        ) from None
