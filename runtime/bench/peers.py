"""What a bundle is timed beside: found by name among the entry points, as the runtime knows no torch."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from dpmrt.errors import MissingExtraError, OptionError
from dpmrt.runtime.bench.request import Request
from dpmrt.runtime.bench.schema import Comparison, Measured
from dpmrt.runtime.bench.subject import Subject
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.interrupt import was_interrupted

GROUP = "dpmrt.peers"


class Sampled(Subject, Protocol):
    """A subject whose samples are there to be compared."""

    result: NDArray[Any]


class Peer(Protocol):
    """The network that a bundle came from, in the library that it came from."""

    device: str
    precision: str
    scheduler: str

    def move(self, device: str) -> None:
        """Compute on this kind of device from now on: `cpu` or `cuda`."""

    def subject(self, request: Request, *, steps: int) -> Sampled:
        """Return what takes the same steps from the same noise with the same conditions."""

    def compare(
        self, engine: str, ours: tuple[Measured, NDArray[Any]], theirs: tuple[Measured, NDArray[Any]]
    ) -> Comparison:
        """Hold an engine's times and results against the peer's."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that the peer runs on."""


def open_peer(
    name: str,
    bundle: OpenBundle,
    *,
    source: str | Path | None,
    compiled: bool,
    threads: int | None,
) -> Peer:
    """Open the peer of this name; raises MissingExtraError where its library is not installed."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise OptionError(
            "unknown peer",
            got=repr(name),
            expected=", ".join(sorted(found)) or "none is installed",
            fix="--against torch" if "torch" in found else "reinstall dpmrt",
        )
    try:
        make = found[name].load()
    except ImportError as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        raise MissingExtraError(
            f"timing the bundle beside {name} needs packages that are not installed",
            got=error,
            expected="torch and diffusers",
            fix="pip install 'dpmrt[export]'",
        ) from error
    peer: Peer = make(bundle, source=source, compiled=compiled, threads=threads)
    return peer
