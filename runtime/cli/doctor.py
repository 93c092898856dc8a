"""`dpmrt doctor`: what is installed here, what it can run, and why it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dpmrt.runtime.doctor.schema import BuiltEngine, DoctorReport, EngineState, Library


@click.command("doctor", short_help="Show what is installed, what can run, and why something cannot.")
@click.argument("bundle", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(bundle: str | None, as_json: bool) -> None:
    """Show libraries, driver and GPU, which engines can run here, and what is missing for the others.

    With BUNDLE, it is opened with every engine that can run, and its built TensorRT engines are held against this
    machine, field by field. Each library is asked in a process of its own. The exit code is 1 where nothing can
    sample.

    \b
    Examples:
      dpmrt doctor
      dpmrt doctor digits
      dpmrt doctor bundles/cifar --json
    """
    from dpmrt.runtime.doctor.examine import examine

    report = examine(bundle)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        _print(report, asked=bundle is not None)
    if not report.healthy:
        raise SystemExit(1)


def _print(report: DoctorReport, *, asked: bool) -> None:
    here = report.system
    memory = f"{_gib(here.memory_available)} free of {_gib(here.memory_bytes)}"
    _section(
        "machine",
        [
            ("system", here.system),
            ("processor", f"{here.processor}, {here.cores} cores"),
            ("memory", memory),
            ("disk", f"{_gib(here.disk_free)} free"),
            ("GPU", here.gpu or f"none: {here.gpu_problem}"),
            ("Python", here.python),
            ("dpmrt", here.dpmrt),
        ],
    )
    _section("libraries", [(library.name, _library(library)) for library in report.libraries])
    title = f"engines, tried on {report.bundle}" + ("" if asked else ", which ships with dpmrt")
    if report.bundle_problem is not None:
        _section("bundle", [(report.bundle, report.bundle_problem)])
        title = "engines"
    _section(title, [(state.engine, _engine(state)) for state in report.engines])
    if asked and report.bundle_problem is None:
        click.secho(f"built engines in {report.folder}", bold=True)
        for engine in report.built:
            _print_built(engine)
        if report.built_problem is not None:
            click.echo(f"  cannot be looked at: {report.built_problem}")
        elif not report.built:
            click.echo(f"  none; TensorRT's are built by: dpmrt build {report.bundle}")
    if not report.healthy:
        click.secho("nothing can sample here", bold=True, err=True)


def _library(library: Library) -> str:
    if library.version is None:
        return "not installed"
    if library.problem is not None:
        return f"{library.version}, which cannot be loaded: {library.problem}"
    return ", ".join([library.version, *(f"{name} {value}" for name, value in library.facts.items() if value)])


def _engine(state: EngineState) -> str:
    if state.missing:
        return "\n".join(f"lacks {what}: {fix}" for what, fix in state.missing.items())
    if state.opens:
        return "runs"
    return f"cannot: {state.problem}" if state.problem else "not tried, as the bundle cannot be opened"


def _print_built(engine: BuiltEngine) -> None:
    about = ", ".join(part for part in (engine.network, engine.library, engine.target) if part)
    verdict = "fits" if engine.fits else "does not fit" if engine.problem is None else "damaged"
    click.echo(f"  {engine.key}  {verdict}" + (f"  ({about})" if about else ""))
    if engine.problem is not None:
        click.echo(f"    {_indented(engine.problem, 4)}")
    for misfit in engine.misfits:
        click.echo(f"    {misfit.field}: built for {misfit.engine}, here {misfit.here}")
        click.echo(f"      {misfit.fix}")
    if engine.rebuild is not None:
        click.echo(f"    build it anew: {engine.rebuild}")


def _section(title: str, facts: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in facts)
    click.secho(title, bold=True)
    for name, text in facts:
        click.echo(f"  {name:<{width}}  {_indented(text, width + 4)}")


def _indented(text: str, column: int) -> str:
    return text.replace("\n", "\n" + " " * column)


def _gib(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size / 2**30:.1f} GiB"
