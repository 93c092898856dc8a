"""`dpmrt export`: a diffusers model folder to a bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dpmrt.export.cli.phases import phase_progress
from dpmrt.export.cli.termination import terminated_like_interrupted

if TYPE_CHECKING:
    from rich.console import Console

    from dpmrt.engines import Manifest, Network

_SHOWN_PINS = 8
_PHASES = {
    "load": "Loading the network",
    "trace": "Tracing it to ONNX",
    "write": "Writing the graph",
    "check": "Comparing with torch",
    "guard": "Trying the precision",
    "classifier": "Exporting a classifier",
    "vjp": "Exporting v^T J",
    "hash": "Hashing the files",
}


@click.command("export", short_help="Export a diffusion network to a bundle.")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the bundle to write.")
@click.option("--name", help="Name of the bundle.  [default: the folder's name]")
@click.option("--subfolder", help="Where the UNet lies within SOURCE.  [default: unet/, or SOURCE itself]")
@click.option(
    "--scheduler", type=click.Path(path_type=Path), help="scheduler_config.json, when SOURCE has none or another."
)
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    help="fp32, fp16 or bf16: what the graph computes in, but for what needs fp32.",
)
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="NAME=SIZE",
    help="Fix an axis (height=96), leave it open (height=free), or within bounds (height=32:64:128); repeatable.",
)
@click.option("--one-timestep", is_flag=True, help="One timestep for the whole batch, instead of one a sample.")
@click.option("--fold-guidance", is_flag=True, help="Make classifier-free guidance a part of the graph.")
@click.option(
    "--guard/--no-guard", default=True, help="Try half precision, and keep in fp32 what breaks.", show_default=True
)
@click.option("--spec", help="TOML file, or PACKAGE.MODULE:NAME, that describes the network of a factory.")
@click.option("--weights", type=click.Path(path_type=Path), help="safetensors file with the weights of a factory.")
@click.option("--classifier", help="Folder or PACKAGE.MODULE:FACTORY of a noise-aware classifier, for its gradient.")
@click.option("--classes", type=int, help="How many classes the classifier of a factory knows.")
@click.option("--vjp", is_flag=True, help="Export the product of a vector with the Jacobian too, for likelihoods.")
@click.option("--force", is_flag=True, help="Replace the bundle that is there already, with any engines built in it.")
@click.option("--dry-run", is_flag=True, help="Print what would be exported, and write nothing.")
def command(
    source: Path,
    out: Path,
    name: str | None,
    subfolder: str | None,
    scheduler: Path | None,
    precision: str,
    axes: tuple[str, ...],
    one_timestep: bool,
    fold_guidance: bool,
    guard: bool,
    spec: str | None,
    weights: Path | None,
    classifier: str | None,
    classes: int | None,
    vjp: bool,
    force: bool,
    dry_run: bool,
) -> None:
    """Export the network in SOURCE to ONNX, and write it with its scheduler as a bundle.

    SOURCE is a folder that diffusers saved (a UNet, a pipeline with unet/ and scheduler/, or a checkpoint of the
    reference model), or PACKAGE.MODULE:FUNCTION, a function that returns a torch.nn.Module. The graph is compared
    with torch before the bundle appears.

    \b
    Examples:
      dpmrt export engines/checkpoints/digits-unet -o engines/digits
      dpmrt export stable-diffusion-v1-5 -o bundles/sd15 --precision fp16
      dpmrt export ddpm-cifar10-32 -o bundles/cifar --axis batch=1:4:16 --force
      dpmrt export sd-inpainting -o bundles/paint --fold-guidance --axis height=64 --axis width=64
      dpmrt export my_project.nets:make_unet --spec unet.toml --weights unet.safetensors \\
          --scheduler ddim/scheduler_config.json -o bundles/mine
      dpmrt export engines/checkpoints/digits-unet -o guided --classifier engines/checkpoints/digits-classifier
      dpmrt export engines/checkpoints/digits-unet -o digits-vjp --vjp
      dpmrt export my-pipeline -o bundles/mine --dry-run
    """
    from rich.console import Console

    from dpmrt.export.extras import require_export

    require_export()

    from dpmrt.engines import MANIFEST_NAME, read_manifest
    from dpmrt.export.bundle import (
        check_request,
        export_bundle,
        make_plan,
        open_classifier,
        open_source,
        phases,
        read_scheduler,
    )
    from dpmrt.export.classifier import check_fits, check_trained_times
    from dpmrt.export.cli.axes import parse_axes
    from dpmrt.export.draft import draft_manifest
    from dpmrt.export.onnx_files import MODEL_NAME
    from dpmrt.export.vjp import check_vjp

    console = Console()
    sizes = parse_axes(axes)
    if dry_run:
        target = check_request(out, precision=precision, name=name, force=force)
        loaded = open_source(source, subfolder, spec, weights).shaped(sizes, one_time=one_timestep)
        if vjp:
            check_vjp(loaded, precision, fold_guidance)
        plan = make_plan(loaded, precision, fold=fold_guidance)
        scheduler_config = read_scheduler(loaded, scheduler)
        draft = draft_manifest(plan, scheduler_config, target, name=name)
        judge = open_classifier(classifier, loaded, classes)
        if judge is not None:
            check_trained_times(judge, scheduler_config)
            check_fits(draft.unet, judge, draft.guidance)
        _print_summary(console, draft, out)
        more = [f"{part}/{MODEL_NAME}" for part, asked in (("classifier", judge), ("vjp", vjp)) if asked]
        files = [draft.unet.path, draft.unet.config, draft.scheduler, *more, MANIFEST_NAME]
        console.print(f"Would write {', '.join(str(path) for path in files)}. Nothing was written.")
        return
    # The stream is taken now, so that whatever captures stderr later cannot swallow the progress.
    shown = Console(file=sys.stderr)
    with (
        terminated_like_interrupted(),
        phase_progress(shown, _PHASES, phases(precision, guard, classifier is not None, vjp)) as tell,
    ):
        bundle = export_bundle(
            source,
            out,
            precision=precision,
            name=name,
            subfolder=subfolder,
            scheduler=scheduler,
            sizes=sizes,
            one_time=one_timestep,
            fold=fold_guidance,
            guarded=guard,
            spec=spec,
            weights=weights,
            classifier=classifier,
            classes=classes,
            vjp=vjp,
            force=force,
            progress=tell,
        )
    _print_summary(console, read_manifest(bundle, check=False), out)
    console.print(f"Wrote {out}. Next: dpmrt verify {out}", soft_wrap=True)


def _print_summary(console: Console, manifest: Manifest, out: Path) -> None:
    from rich.table import Table

    facts = manifest.provenance
    table = Table(title=f"{manifest.name} ({facts['kind']})", title_justify="left", show_header=False)
    kind = manifest.unet.precision.kind
    parameters = int(facts["parameters"])
    table.add_row("parameters", f"{parameters:,}")
    if manifest.files:
        names = (manifest.unet.path, *manifest.unet.data)
        table.add_row("ONNX size", f"{sum(manifest.files[name].bytes for name in names) / 1e6:,.2f} MB")
    else:
        table.add_row("ONNX size", f"about {parameters * (4 if kind == 'fp32' else 2) / 1e6:,.2f} MB")
    table.add_row("precision", kind)
    table.add_row("inputs", _tensors(manifest.unet, "inputs"))
    table.add_row("outputs", _tensors(manifest.unet, "outputs"))
    for axis, sizes in manifest.unet.axes.items():
        table.add_row(f"open axis {axis}", f"{sizes}, usually {sizes.opt}")
    table.add_row("prediction", manifest.prediction)
    if manifest.guidance:
        guided = manifest.guidance
        table.add_row("guidance", f"{guided.classes} classes, null label {guided.null_label}, scale {guided.scale:g}")
    if "relative_error" in facts:
        table.add_row("error against torch", f"{facts['relative_error']:.2e} of the RMS")
    if "calibration_psnr" in facts:
        table.add_row("trajectory against fp32", f"{facts['calibration_psnr']:g} dB")
    pinned = manifest.unet.precision.pinned
    for pin in pinned[:_SHOWN_PINS]:
        table.add_row("kept in fp32", f"{pin.node}: {pin.why}")
    if len(pinned) > _SHOWN_PINS:
        table.add_row("", f"and {len(pinned) - _SHOWN_PINS} more nodes: dpmrt inspect {out}")
    table.add_row("bundle", str(out))
    console.print(table)


def _tensors(network: Network, side: str) -> str:
    specs = network.inputs if side == "inputs" else network.outputs
    return "\n".join(f"{spec.name}: {spec.dtype} ({', '.join(str(axis) for axis in spec.shape)})" for spec in specs)
