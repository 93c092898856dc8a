"""`dpmrt export`: a diffusers model folder to a bundle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpmrt.export.cli.termination import terminated_like_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from dpmrt.engines import Manifest, Network

_PHASES = {
    "load": "Loading the network",
    "trace": "Tracing it to ONNX",
    "write": "Writing the graph",
    "check": "Comparing with torch",
    "hash": "Hashing the files",
}


@click.command("export", short_help="Export a diffusers UNet to a bundle.")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the bundle to write.")
@click.option("--name", help="Name of the bundle.  [default: the folder's name]")
@click.option("--subfolder", help="Where the UNet lies within SOURCE.  [default: unet/, or SOURCE itself]")
@click.option(
    "--scheduler", type=click.Path(path_type=Path), help="scheduler_config.json, when SOURCE has none or another."
)
@click.option("--precision", default="fp32", show_default=True, help="Precision of the weights in the graph.")
@click.option("--force", is_flag=True, help="Replace the bundle that is there already, with any engines built in it.")
@click.option("--dry-run", is_flag=True, help="Print what would be exported, and write nothing.")
def command(
    source: Path,
    out: Path,
    name: str | None,
    subfolder: str | None,
    scheduler: Path | None,
    precision: str,
    force: bool,
    dry_run: bool,
) -> None:
    """Export the UNet in SOURCE to ONNX, and write it with its scheduler as a bundle.

    SOURCE is a folder that diffusers saved: a UNet, a pipeline with unet/ and scheduler/, or a checkpoint of the
    reference model. The graph is compared with torch before the bundle appears.

    \b
    Examples:
      dpmrt export engines/checkpoints/digits-unet -o engines/digits
      dpmrt export ddpm-cifar10-32 -o bundles/cifar --name cifar --force
      dpmrt export my-unet -o bundles/mine --scheduler ddim/scheduler_config.json
      dpmrt export my-pipeline -o bundles/mine --dry-run
    """
    from rich.console import Console

    from dpmrt.export.extras import require_export

    require_export()

    from dpmrt.engines import MANIFEST_NAME, read_manifest
    from dpmrt.export.bundle import check_request, draft_manifest, export_bundle, read_scheduler
    from dpmrt.export.sources import load_source

    console = Console()
    if dry_run:
        target = check_request(out, precision=precision, name=name, force=force)
        loaded = load_source(source, subfolder)
        draft = draft_manifest(loaded, read_scheduler(loaded, scheduler), target, name=name)
        _print_summary(console, draft, out)
        files = [draft.unet.path, draft.unet.config, draft.scheduler, MANIFEST_NAME]
        console.print(f"Would write {', '.join(str(path) for path in files)}. Nothing was written.")
        return
    # The stream is taken now, so that whatever captures stderr later cannot swallow the progress.
    with terminated_like_interrupted(), _phases(Console(file=sys.stderr)) as tell:
        bundle = export_bundle(
            source,
            out,
            precision=precision,
            name=name,
            subfolder=subfolder,
            scheduler=scheduler,
            force=force,
            progress=tell,
        )
    _print_summary(console, read_manifest(bundle, check=False), out)
    console.print(f"Wrote {out}. Next: dpmrt verify {out}", soft_wrap=True)


@contextmanager
def _phases(console: Console) -> Iterator[Callable[[str], None]]:
    """Show each phase with the time that it takes."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(finished_text="✓"), TextColumn("{task.description:<22}"), TimeElapsedColumn()
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:

        def tell(phase: str) -> None:
            finish()
            progress.add_task(_PHASES[phase], total=1)

        def finish() -> None:
            for task in progress.task_ids:
                progress.update(task, completed=1)

        yield tell
        finish()


def _print_summary(console: Console, manifest: Manifest, out: Path) -> None:
    from rich.table import Table

    facts = manifest.provenance
    table = Table(title=f"{manifest.name} ({facts['kind']})", title_justify="left", show_header=False)
    table.add_row("parameters", f"{facts['parameters']:,}")
    if manifest.files:
        names = (manifest.unet.path, *manifest.unet.data)
        table.add_row("ONNX size", f"{sum(manifest.files[name].bytes for name in names) / 1e6:,.2f} MB")
    table.add_row("inputs", _tensors(manifest.unet, "inputs"))
    table.add_row("outputs", _tensors(manifest.unet, "outputs"))
    table.add_row("prediction", manifest.prediction)
    if manifest.guidance:
        guided = manifest.guidance
        table.add_row("guidance", f"{guided.classes} classes, null label {guided.null_label}, scale {guided.scale:g}")
    if "relative_error" in facts:
        table.add_row("error against torch", f"{facts['relative_error']:.2e} of the RMS")
    table.add_row("bundle", str(out))
    console.print(table)


def _tensors(network: Network, side: str) -> str:
    specs = network.inputs if side == "inputs" else network.outputs
    return "\n".join(f"{spec.name}: {spec.dtype} ({', '.join(str(axis) for axis in spec.shape)})" for spec in specs)
