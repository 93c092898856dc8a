"""The report of `dpmrt bench` on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dpmrt.runtime.cli.tables import print_table

if TYPE_CHECKING:
    from dpmrt.runtime.bench.schema import BenchReport, Measured
    from dpmrt.runtime.bench.summary import Summary

_TIMES = ("mean", "p50", "p95", "p99", "min", "max", "runs")
#: from so many waiting processes a processor, the times are said to be disturbed
_BUSY = 0.5


def print_report(report: BenchReport) -> None:
    """Print what was measured: times in milliseconds, with what each table means in its title."""
    _print_head(report)
    sides = [(result.engine, entry) for result in report.engines for entry in result.batches]
    sides += [(peer.peer, entry) for peer in report.peers for entry in peer.batches]
    if sides:
        _times("one network call, ms", [(side, entry, entry.call) for side, entry in sides])
        _times("whole sample, ms", [(side, entry, entry.sample) for side, entry in sides])
        _print_throughput(sides)
    _print_first(report)
    _print_comparisons(report)
    failures = [(result.engine, failure) for result in report.engines for failure in result.failures]
    failures += [(peer.peer, failure) for peer in report.peers for failure in peer.failures]
    _lines("failed", [f"{side}, batch {failure.batch}: {failure.reason}" for side, failure in failures])
    _lines("cannot run this bundle here", [f"{entry.engine}: {entry.reason}" for entry in report.unable])


def _print_head(report: BenchReport) -> None:
    guided = f", guided by {report.guidance:g}" if report.guidance != 1 else ""
    shape = "x".join(str(size) for size in report.shape)
    click.secho(f"{report.bundle} in {report.precision}, samples of {shape}{guided}", bold=True)
    click.echo(f"  {report.steps} steps of {report.solver}")
    machine = report.machine
    memory = f", {_mib(machine.memory_bytes)} MiB" if machine.memory_bytes else ""
    click.echo(
        f"  {machine.processor}, {machine.cores} cores{memory}, {machine.system}; GPU: {machine.gpu or 'none'}"
    )
    click.echo("  " + ", ".join(f"{name} {version}" for name, version in report.versions.items()))
    if machine.load is not None and machine.load > _BUSY * machine.cores:
        click.echo(f"  other work was running (load {machine.load:.1f} at the start): the times are too long")


def _times(title: str, rows: Sequence[tuple[str, Measured, Summary]]) -> None:
    click.echo()
    click.secho(title, bold=True)
    cells = [
        [
            side,
            str(entry.batch),
            str(entry.rows),
            *(_ms(getattr(times, name)) for name in _TIMES[:-1]),
            str(times.runs),
        ]
        for side, entry, times in rows
    ]
    print_table(["engine", "batch", "rows", *_TIMES], cells)


def _print_throughput(sides: Sequence[tuple[str, Measured]]) -> None:
    click.echo()
    click.secho("throughput, and the whole sample beside its network calls alone", bold=True)
    cells = [
        [
            side,
            str(entry.batch),
            f"{entry.samples_per_second:.2f}",
            str(entry.calls),
            _ms(entry.bare.p50),
            f"{entry.overhead.per_call * 1e6:.1f}",
            f"{entry.overhead.ratio:.4f}",
        ]
        for side, entry in sides
    ]
    print_table(["engine", "batch", "samples/s", "calls", "calls alone, ms", "loop, us/call", "sample/calls"], cells)


def _print_first(report: BenchReport) -> None:
    rows = [(result.engine, result.first) for result in report.engines if result.first is not None]
    if not rows:
        return
    click.echo()
    click.secho("first sample of a fresh process, and its largest memory", bold=True)
    cells = [
        [
            name,
            _ms(first.load),
            _ms(first.sample),
            _ms(first.from_start),
            _mib(first.peak_bytes),
            _mib(first.device_bytes),
        ]
        for name, first in rows
    ]
    print_table(["engine", "load, ms", "sample, ms", "from start, ms", "memory, MiB", "on device, MiB"], cells)


def _print_comparisons(report: BenchReport) -> None:
    for peer in report.peers:
        compiled = ", compiled" if peer.compiled else ""
        click.echo()
        click.secho(
            f"beside {peer.peer} ({peer.device}, {peer.precision}{compiled}, {peer.scheduler}): times faster",
            bold=True,
        )
        cells = [
            [
                entry.engine,
                str(entry.batch),
                f"{entry.call_ratio:.2f}" if entry.agrees else "-",
                f"{entry.sample_ratio:.2f}" if entry.agrees else "-",
                f"{entry.max_difference:.1e}",
                f"{entry.drift:.1e}",
                "-" if entry.psnr is None else f"{entry.psnr:.1f}",
                "yes" if entry.agrees else "NO",
            ]
            for entry in peer.comparisons
        ]
        if cells:
            print_table(["engine", "batch", "call", "sample", "max diff", "drift", "PSNR, dB", "same result"], cells)
        if not all(entry.agrees for entry in peer.comparisons):
            click.echo("  the results differ, so that no ratio is given: run `dpmrt verify` on the bundle")


def _lines(title: str, lines: Sequence[str]) -> None:
    if lines:
        click.echo()
        click.secho(title, bold=True)
        for line in lines:
            click.echo(f"  {line}")


def _ms(seconds: float) -> str:
    digits = 3 if seconds < 1 else 1
    return f"{seconds * 1e3:.{digits}f}"


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.0f}"
