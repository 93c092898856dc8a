"""`dpmrt inspect`: what a bundle or a saved plan holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from dpmrt.runtime.cli import UNCHECKED
from dpmrt.runtime.cli.network import (
    built_engines,
    engine_auto,
    last_verification,
    network_axes,
    network_facts,
    network_pins,
)
from dpmrt.runtime.cli.tables import print_table

if TYPE_CHECKING:
    from dpmrt.engines import TensorSpec
    from dpmrt.runtime.bundle import OpenBundle
    from dpmrt.solvers_np import StepPlan

Fact: TypeAlias = "tuple[str, object]"

_LONG = 8


@click.command("inspect", short_help="Show what a bundle or a saved plan holds.")
@click.argument("path")
def command(path: str) -> None:
    """Show PATH: a bundle, by its folder or name, whose files are checked on the way; or a plan from --save-plan.

    \b
    Examples:
      dpmrt inspect digits
      dpmrt inspect bundles/cifar
      dpmrt inspect steps.plan
    """
    if Path(path).is_file():
        from dpmrt.solvers_np import StepPlan

        _print_plan(StepPlan.load(path))
        return
    from dpmrt.runtime.bundle import open_bundle

    bundle = open_bundle(path)
    if bundle.inferred:
        click.echo(UNCHECKED, err=True)
    _print_bundle(bundle)


def _print_bundle(bundle: OpenBundle) -> None:
    manifest = bundle.manifest
    _section(manifest.name, [("folder", bundle.root), ("network", manifest.unet.path), *_facts(bundle)])
    _section("inputs", _tensors(manifest.unet.inputs))
    _section("outputs", _tensors(manifest.unet.outputs))
    _section("free axes", network_axes(manifest.unet))
    _section("pinned to fp32", network_pins(manifest.unet))
    for name, network in (("classifier", manifest.classifier), ("vector-Jacobian product", manifest.vjp)):
        if network is None:
            continue
        _section(name, [("network", network.path), *network_facts(bundle, network)])
        _section(f"{name}'s inputs", _tensors(network.inputs))
        _section(f"{name}'s outputs", _tensors(network.outputs))
        _section(f"{name}'s free axes", network_axes(network))
        _section(f"{name}'s nodes pinned to fp32", network_pins(network))
    _section("TensorRT engines", built_engines(bundle))
    _section("scheduler", bundle.scheduler_config.items())
    _section("provenance", manifest.provenance.items())
    _section(
        "files, checked" if manifest.files else "files",
        ((name, f"{file.bytes:>13,} bytes  sha256 {file.sha256[:16]}…") for name, file in manifest.files.items()),
    )


def _facts(bundle: OpenBundle) -> Iterator[Fact]:
    from dpmrt.runtime.calibration.statistic import describe_statistic

    manifest, guidance = bundle.manifest, bundle.manifest.guidance
    yield from network_facts(bundle, manifest.unet)
    yield "prediction", manifest.prediction
    yield "data range", f"{manifest.data_range[0]:g} to {manifest.data_range[1]:g}"
    folded = ", folded into the graph" * manifest.unet.folded_guidance
    if guidance is None:
        yield "guidance", f"by scale and negative conditions{folded}" if folded else "none by class"
    else:
        usual = f"scale {guidance.scale:g} where a label is given"
        yield "guidance", f"{guidance.classes} classes, {guidance.null_label} for no class, {usual}{folded}"
    defaults = manifest.defaults
    chosen = "".join(f", {key}={value}" for key, value in defaults.options.items())
    yield "by default", f"{defaults.steps} steps, {defaults.solver or 'the scheduler below'}{chosen}"
    yield "engine auto", engine_auto(bundle)
    yield "verified", last_verification(bundle)
    yield "analytic variance", describe_statistic(bundle)


def _tensors(specs: Iterable[TensorSpec]) -> Iterator[Fact]:
    for spec in specs:
        name = "" if spec.name == spec.role else f"  named {spec.name}"
        yield spec.role, f"{spec.dtype} [{', '.join(str(axis) for axis in spec.shape)}]{name}"


def _print_plan(plan: StepPlan) -> None:
    about = [(key, value) for key, value in plan.meta.items() if not isinstance(value, dict) or value]
    noise = f"{plan.draws} draws" if plan.stochastic else "none"
    digest = plan.digest()[:16] + "…"
    _section("plan", [*about, ("calls", plan.calls), ("slots", plan.slots), ("noise", noise), ("digest", digest)])
    rows = [{key: _cell(value) for key, value in row.items()} for row in plan.describe()]
    used = [key for key in rows[0] if any(row[key] not in ("-", "") for row in rows)]
    print_table(used, [[row[key] for key in used] for row in rows])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if dataclasses.is_dataclass(value):
        return type(value).__name__ + "(" + ", ".join(_cell(part) for part in dataclasses.astuple(value)) + ")"  # type: ignore[arg-type]
    if isinstance(value, dict):
        return " ".join(f"{key}:{_cell(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)) and len(value) > _LONG:
        return f"{len(value)} values"
    if isinstance(value, (list, tuple)):
        return " ".join(_cell(part) for part in value)
    return str(value)


def _section(title: str, facts: Iterable[Fact]) -> None:
    lines = [(key, _cell(value)) for key, value in facts]
    if not lines:
        return
    width = max(len(key) for key, _ in lines)
    click.secho(title, bold=True)
    for key, text in lines:
        click.echo(f"  {key:<{width}}  {text}")
