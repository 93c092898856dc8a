"""A verification on the terminal, section by section."""

from __future__ import annotations

from collections.abc import Sequence

import click

from dpmrt.engines import BackendParity, CallParity, GraphParity, Limits, ParityReport
from dpmrt.export.certificate.limits import beyond
from dpmrt.runtime.cli.tables import print_table

_KEY = 18
_CALL_COLUMNS = ("backend", "sizes", "t", "rms", "max error", "/ rms", "rms error / rms", "")


def print_report(bundle: str, report: ParityReport) -> None:
    """Print what was compared, the calls and the trajectory of each backend, and the verdict."""
    _print_model(bundle, report)
    _print_calls(report)
    for backend in report.backends:
        _print_trajectory(backend)
    for graph in report.graphs:
        _print_graph(graph)
    if report.followed == "plan":
        click.echo("\nThe torch network followed the bundle's own plan, as diffusers has no such scheduler: the")
        click.echo("trajectory compares the network, not the sampler.")
    _print_verdict(report)


def _print_model(bundle: str, report: ParityReport) -> None:
    _head("Model")
    _line("bundle", bundle)
    _line("precision", report.precision)
    _line("sample", " x ".join(str(size) for size in report.shape))
    _line("scheduler", report.scheduler)
    _line("options", ", ".join(f"{name} {value:g}" for name, value in report.options.items() if value is not None))
    for backend in report.backends:
        _line(backend.backend, f"{backend.graph}, SHA-256 {backend.onnx_sha256[:16]}")
    _line("weights", f"SHA-256 {report.weights_sha256[:16]}")
    _line("machine", report.machine)
    _line("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items()))


def _print_calls(report: ParityReport) -> None:
    _head("Single calls")
    rows: list[Sequence[str]] = []
    for backend in report.backends:
        rows += [_call_row(backend.backend, call, report.limits) for call in backend.calls]
    print_table(_CALL_COLUMNS, rows)
    _line("limit", _call_limits(report.limits))


def _print_graph(graph: GraphParity) -> None:
    what = {"gradient": "gradient of log p(y | x)", "vjp": "vector-Jacobian product"}.get(graph.output, graph.output)
    _head(f"{graph.graph}: {what}")
    print_table(_CALL_COLUMNS, [_call_row(graph.backend, call, graph.limits) for call in graph.calls])
    _line("limit", _call_limits(graph.limits))
    _line("SHA-256", f"{graph.onnx_sha256[:16]}, of the weights in torch {graph.weights_sha256[:16]}")


def _call_limits(limits: Limits) -> str:
    said = [
        *([] if limits.call is None else [f"max error / rms at most {limits.call:.0e}"]),
        *([] if limits.call_rms is None else [f"rms error / rms at most {limits.call_rms:.0e}"]),
    ]
    return ", ".join(said) or "none"


def _call_row(name: str, call: CallParity, limits: Limits) -> tuple[str, ...]:
    good = call.max_relative is not None and not beyond(call, limits)
    return (
        name,
        ", ".join(f"{axis} {size}" for axis, size in call.sizes.items()),
        ", ".join(f"{t:g}" for t in call.times),
        f"{call.rms:.4f}",
        *(_number(value) for value in (call.max_abs, call.max_relative, call.rms_relative)),
        "ok" if good else "FAIL",
    )


def _print_trajectory(backend: BackendParity) -> None:
    _head(f"Trajectory: {backend.backend}")
    rows = [
        (
            str(number),
            f"{step.t:g}",
            f"{step.rms:.4f}",
            f"{step.max_abs:.2e}",
            f"{step.drift:.2e}",
            "equal" if step.psnr is None else f"{step.psnr:.1f}",
        )
        for number, step in enumerate(backend.steps, start=1)
    ]
    print_table(("step", "t", "rms", "max difference", "relative drift", "PSNR, dB"), rows)


def _print_verdict(report: ParityReport) -> None:
    _head("Verdict")
    _line("limits", _limits(report))
    for backend in report.backends:
        worst = backend.worst_call
        said = [
            f"call {_number(worst.max_relative if worst else None)}",
            f"drift {_number(backend.drift)}",
            *([] if backend.psnr is None else [f"PSNR {backend.psnr:.1f} dB"]),
        ]
        _line(backend.backend, f"{', '.join(said)}: {_verdict(backend.passed)}")
        for failure in backend.failures:
            _line("", failure)
    for graph in report.graphs:
        name = f"{graph.network} {graph.output}" if graph.output == "out_sample" else graph.network
        _line(name, f"RMS of a call {_number(graph.worst)}: {_verdict(graph.passed)}")
        for failure in graph.failures:
            _line("", failure)
    _line("verdict", _verdict(report.passed))


def _limits(report: ParityReport) -> str:
    limits = report.limits
    said = [
        *([] if limits.call is None else [f"call {limits.call:.0e}"]),
        *([] if limits.call_rms is None else [f"RMS of a call {limits.call_rms:.0e}"]),
        *([] if limits.drift is None else [f"drift {limits.drift:g}"]),
        *([] if limits.psnr is None else [f"PSNR {limits.psnr:g} dB"]),
    ]
    if report.peak is not None:
        source = "the data's range" if report.peak.of == "data_range" else "the range of torch's sample"
        said.append(f"PSNR over {source}, {report.peak.width:.4g}")
    return ", ".join(said)


def _verdict(passed: bool) -> str:
    return click.style("PASS", fg="green") if passed else click.style("FAIL", fg="red")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2e}"


def _head(title: str) -> None:
    click.secho(f"\n=== {title} ===", bold=True)


def _line(key: str, value: str) -> None:
    click.echo(f"{key + ':' if key else '':<{_KEY}} {value}")
