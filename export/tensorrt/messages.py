"""What the building process is told, and what it tells: one JSON object in, one a line out."""

from __future__ import annotations

from typing import Literal

import msgspec

from dpmrt.engines.built import EngineTensor, Request

Reason = Literal["parse", "build", "disk", "memory", "library", "cancelled", "other"]


class Job(msgspec.Struct, frozen=True):
    """One engine to build: from which graph, into which file."""

    request: Request
    graph: str
    plan: str
    log: str
    parent: int
    timing_cache: str | None = None


class Started(msgspec.Struct, frozen=True, tag="started"):
    """A phase of the builder begins: `steps` steps, below the phase `parent`."""

    phase: str
    parent: str | None
    steps: int


class Stepped(msgspec.Struct, frozen=True, tag="stepped"):
    """A phase has `done` of its steps behind it."""

    phase: str
    done: int


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """A phase is over."""

    phase: str


class Built(msgspec.Struct, frozen=True, tag="built"):
    """The plan is written."""

    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    layers: int
    parse_seconds: float
    build_seconds: float
    peak_bytes: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """There is no plan: why, in the library's own words."""

    reason: Reason
    what: str
    got: str


Event = Started | Stepped | Finished
Message = Started | Stepped | Finished | Built | Failed
