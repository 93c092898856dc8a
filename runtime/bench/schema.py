"""What a measurement says: the fields of the file that `dpmrt bench --json` writes. All times are in seconds."""

from __future__ import annotations

from typing import Literal

import msgspec

from dpmrt.runtime.bench.summary import Summary

VERSION = 1


class Overhead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole sample beyond its network calls: medians over pairs of a sample and its bare calls, run in turn."""

    per_call: float
    ratio: float


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One batch size on one engine, or on the peer.

    `rows` is how many the network sees at a time: twice the batch where guidance doubles it. `bare` is `calls`
    network calls and nothing else.
    """

    batch: int
    rows: int
    calls: int
    call: Summary
    bare: Summary
    sample: Summary
    overhead: Overhead
    samples_per_second: float


class FirstSample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From nothing to a sample, in a process of its own: medians over `runs` processes, and their largest memory."""

    runs: int
    load: float
    sample: float
    from_start: float
    peak_bytes: int | None
    device_bytes: int | None = None


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch that an engine did not get through."""

    batch: int
    reason: str


class EngineResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that was measured of one engine."""

    engine: str
    device: str
    first: FirstSample | None
    batches: tuple[Measured, ...]
    failures: tuple[Failure, ...] = ()


class Unable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine that cannot run the bundle here, and why."""

    engine: str
    reason: str


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An engine beside the peer, at one batch: how many times faster, and how far apart the results are.

    `drift` is the RMS of the difference over that of the peer's result. `agrees` says whether this is within the
    limits that `dpmrt verify` has for the bundle's precision; where it is not, the times are not of the same thing.
    """

    engine: str
    batch: int
    call_ratio: float
    sample_ratio: float
    max_difference: float
    drift: float
    psnr: float | None
    agrees: bool


class PeerResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What runs the same network beside the engines."""

    peer: str
    device: str
    precision: str
    compiled: bool
    scheduler: str
    batches: tuple[Measured, ...]
    comparisons: tuple[Comparison, ...]
    failures: tuple[Failure, ...] = ()


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """On what it ran; `load` is how many processes wanted a processor in the minute before."""

    processor: str
    cores: int
    memory_bytes: int | None
    system: str
    gpu: str | None
    load: float | None


class BenchReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole report."""

    format: Literal["dpmrt-bench"]
    version: int
    date: str
    bundle: str
    network_sha256: str | None
    precision: str
    solver: str
    steps: int
    shape: tuple[int, ...]
    guidance: float
    seed: int
    options: dict[str, int | float | str | None]
    machine: Machine
    versions: dict[str, str]
    engines: tuple[EngineResult, ...]
    unable: tuple[Unable, ...]
    peers: tuple[PeerResult, ...] = ()

    @property
    def sound(self) -> bool:
        """Return whether nothing failed, and every comparison is of equal results."""
        failed = any(part.failures for part in self.engines) or any(part.failures for part in self.peers)
        return not failed and all(entry.agrees for peer in self.peers for entry in peer.comparisons)
