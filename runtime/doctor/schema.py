"""What `dpmrt doctor` finds: the fields of what it prints with `--json`."""

from __future__ import annotations

from typing import Literal

import msgspec

VERSION = 1


class Library(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A library: its version, what it says when it is imported in a process of its own, or why it cannot be."""

    name: str
    version: str | None
    facts: dict[str, str] = {}
    problem: str | None = None

    @property
    def works(self) -> bool:
        """Return whether it is installed and can be imported."""
        return self.version is not None and self.problem is None


class EngineState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine by name: whether its libraries are here; and whether it opened the bundle, None if not tried.

    `missing` names what is not here, each with what brings it.
    """

    engine: str
    missing: dict[str, str]
    opens: bool | None = None
    problem: str | None = None


class Misfit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of a built engine that does not suit."""

    field: str
    engine: str
    here: str
    fix: str


class BuiltEngine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A built engine of the bundle: what it was built for and why it does not suit, or why it cannot be read."""

    key: str
    network: str | None = None
    library: str | None = None
    target: str | None = None
    problem: str | None = None
    misfits: tuple[Misfit, ...] = ()
    rebuild: str | None = None

    @property
    def fits(self) -> bool:
        """Return whether it may be loaded here."""
        return self.problem is None and not self.misfits


class System(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machine; sizes are in bytes, None is what the system does not say."""

    python: str
    dpmrt: str
    system: str
    processor: str
    cores: int
    memory_bytes: int | None
    memory_available: int | None
    disk_free: int | None
    gpu: str | None
    gpu_problem: str | None


class DoctorReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole report.

    `bundle_problem` is why the bundle cannot be opened, `built_problem` why its built engines cannot be looked at;
    None where they can be.
    """

    format: Literal["dpmrt-doctor"]
    version: int
    system: System
    libraries: tuple[Library, ...]
    bundle: str
    bundle_problem: str | None
    engines: tuple[EngineState, ...]
    built: tuple[BuiltEngine, ...]
    folder: str | None = None
    built_problem: str | None = None

    @property
    def healthy(self) -> bool:
        """Return whether something can sample here."""
        return any(state.opens for state in self.engines)
