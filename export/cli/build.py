"""`dpmrt build`: a bundle's graph to a TensorRT engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpmrt.export.cli.termination import terminated_like_interrupted

if TYPE_CHECKING:
    from dpmrt.engines.built import Request
    from dpmrt.export.tensorrt.request import Prepared

_SWITCHES = ("refit", "strip_weights", "weight_streaming", "version_compatible")


@click.command("build", short_help="Build a bundle's network into a TensorRT engine.")
@click.argument("bundle")
@click.option("--network", type=click.Choice(["unet", "classifier"]), default="unet", show_default=True)
@click.option(
    "--flavour",
    type=click.Choice(["tensorrt", "tensorrt_rtx"]),
    help="Which TensorRT builds.  [default: TensorRT where there is a GPU and it is installed, else TensorRT-RTX]",
)
@click.option(
    "--target",
    metavar="WHERE",
    help="device: this GPU; portable: any; sm89,sm120: these.  [default: device, or portable with RTX]",
)
@click.option("--engines", type=click.Path(path_type=Path), help="Folder of engines.  [default: BUNDLE/engines]")
@click.option("--minShapes", "mins", multiple=True, metavar="SHAPES", help="Smallest: INPUT:1x4x64x64,…; repeatable.")
@click.option("--optShapes", "opts", multiple=True, metavar="SHAPES", help="Usual; one for each profile.")
@click.option("--maxShapes", "maxs", multiple=True, metavar="SHAPES", help="Largest; one for each profile.")
@click.option("--builderOptimizationLevel", "level", type=int, metavar="0-5", help="How long it looks for kernels.")
@click.option(
    "--memPoolSize", "pools", multiple=True, metavar="POOL:MiB", help="workspace:1024, tacticSharedMem:48K."
)
@click.option("--timingCacheFile", "timing_cache", type=click.Path(path_type=Path), help="File of kernel timings.")
@click.option("--noTF32", "no_tf32", is_flag=True, help="Multiply fp32 in full, not in TF32.")
@click.option("--refit", is_flag=True, help="Let the weights be replaced later.")
@click.option("--stripWeights", "strip", is_flag=True, help="Leave the weights out; they are put in by refitting.")
@click.option("--weightStreaming", "stream", is_flag=True, help="Let weights stay in host memory.")
@click.option("--versionCompatible", "versions", is_flag=True, help="Let newer TensorRT of the same major load it.")
@click.option(
    "--hardwareCompatibilityLevel",
    "hardware",
    default="none",
    metavar="LEVEL",
    help="none, ampere+, sameComputeCapability.",
)
@click.option("--force", is_flag=True, help="Build even if the engine is there.")
@click.option("--dry-run", is_flag=True, help="Print the request, its profiles and its key, and build nothing.")
@click.option("--progress/--no-progress", default=None, help="Show the builder's phases.  [default: on a terminal]")
def command(
    bundle: str,
    network: str,
    flavour: str | None,
    target: str | None,
    engines: Path | None,
    mins: tuple[str, ...],
    opts: tuple[str, ...],
    maxs: tuple[str, ...],
    level: int | None,
    pools: tuple[str, ...],
    timing_cache: Path | None,
    no_tf32: bool,
    refit: bool,
    strip: bool,
    stream: bool,
    versions: bool,
    hardware: str,
    force: bool,
    dry_run: bool,
    progress: bool | None,
) -> None:
    """Build the network of BUNDLE, a folder or a shipped bundle's name, into a TensorRT engine in BUNDLE/engines.

    The engine is found again as long as graph, TensorRT, target, shapes and flags are the same. TensorRT-RTX needs
    no GPU to build. Flags are trtexec's, where it has them.

    \b
    Examples:
      dpmrt build digits --engines engines
      dpmrt build bundles/sd15 --target sm89,sm120
      dpmrt build bundles/cifar --minShapes=sample:1x3x32x32 --optShapes=sample:16x3x32x32 \\
          --maxShapes=sample:64x3x32x32
      dpmrt build bundles/sd15 --memPoolSize=workspace:2G --weightStreaming
      dpmrt build bundles/guided --network classifier --dry-run
    """
    from dpmrt.engines.built import Flags
    from dpmrt.export.tensorrt.build import build_prepared
    from dpmrt.export.tensorrt.flags import parse_level, parse_pools
    from dpmrt.export.tensorrt.request import prepare

    with terminated_like_interrupted():
        ready = prepare(
            bundle,
            network=network,  # type: ignore[arg-type]
            flavour=flavour,  # type: ignore[arg-type]
            target=target,
            min_shapes=mins,
            opt_shapes=opts,
            max_shapes=maxs,
            flags=Flags(
                optimization_level=level,
                memory_pools=parse_pools(pools),
                tf32=not no_tf32,
                refit=refit,
                strip_weights=strip,
                weight_streaming=stream,
                version_compatible=versions,
                hardware_compatibility=parse_level(hardware),
            ),
            timing_cache=timing_cache is not None,
            engines=engines,
        )
        if dry_run:
            _print_plan(ready, force)
            return
        built = None
        # Drawn where it is looked at: a log gets no bars.
        if sys.stderr.isatty() if progress is None else progress:
            from rich.console import Console

            from dpmrt.export.cli.bars import builder_bars

            with builder_bars(Console(stderr=True)) as tell:
                built = build_prepared(ready, timing_cache=timing_cache, force=force, progress=tell, say=_say)
        else:
            built = build_prepared(ready, timing_cache=timing_cache, force=force, say=_say)
    facts = built.manifest.facts
    if built.found:
        click.echo(f"Found {built.plan}, built {facts.get('date', 'earlier')} from the same request.")
    else:
        size = f"{built.manifest.plan.bytes / 1e6:,.1f} MB"
        took = f"{facts['seconds']:.1f} s, {float(facts['peak_bytes']) / 1e9:.2f} GB peak"
        click.echo(f"Built {built.plan}: {size} in {took}.")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print_plan(ready: Prepared, force: bool) -> None:
    from dpmrt.export.tensorrt.build import find_built, why_anew

    for name, value in describe_request(ready.request):
        click.echo(f"{name:<20} {value}")
    click.echo(f"{'key':<20} {ready.request.key()}")
    click.echo(f"{'folder':<20} {ready.folder}")
    found = find_built(ready.folder, ready.request)
    if found and not force:
        click.echo(f"Would use {found.plan}, which is there. Nothing was built.")
        return
    for line in why_anew(ready.folder, ready.request, force=force):
        click.echo(line)
    click.echo("Nothing was built.")


def describe_request(request: Request) -> list[tuple[str, str]]:
    """Return what an engine is asked to be, one line for each thing."""
    flags = request.flags
    lines = [
        ("network", f"{request.network}, {request.precision}"),
        ("library", str(request.library)),
        ("target", str(request.target)),
        *(("source", f"{name}  sha256 {digest[:16]}…") for name, digest in sorted(request.source.items())),
    ]
    for number, profile in enumerate(request.profiles):
        lines += [(f"profile {number}", f"{name} {sizes}") for name, sizes in profile.items()]
    if not request.profiles:
        lines.append(("profiles", "none: the graph has no free axes"))
    told = [
        f"optimization level {flags.optimization_level}" * (flags.optimization_level is not None),
        *(f"{pool} {size:,} bytes" for pool, size in flags.memory_pools.items()),
        "no TF32" * (not flags.tf32),
        *(name.replace("_", " ") * bool(getattr(flags, name)) for name in _SWITCHES),
        f"hardware compatibility {flags.hardware_compatibility}" * (flags.hardware_compatibility != "none"),
    ]
    lines.append(("flags", ", ".join(text for text in told if text) or "the library's own"))
    return lines
