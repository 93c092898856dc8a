"""`dpmrt train-reference`: train the small networks that the demo and the tests run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import MissingExtraError, OptionError
from dpmrt.export.cli.termination import terminated_like_interrupted

if TYPE_CHECKING:
    from dpmrt.export.reference.loop import Progress

MINUTES = {"unet": 18.0, "classifier": 4.0, "reader": 1.0}
LONGEST_MINUTES = 1440.0
# All but the UNet are so small that handing work to a second thread costs more than it saves.
THREADS = {"unet": 2, "classifier": 1, "reader": 1, "planar": 1}
#: of export/reference/objectives.py, which only a training need load
LOSSES = (
    "ddpm",
    "velocity",
    "learned-range",
    "smld",
    "ve",
    "vp",
    "sub-vp",
    "ve-likelihood",
    "vp-likelihood",
    "sub-vp-likelihood",
)
_LOG_EVERY_SECONDS = 10.0

_EPILOG = """\b
Examples:
  dpmrt train-reference unet -o digits-unet
  dpmrt train-reference unet -o quick --minutes 1
  dpmrt train-reference unet -o repeatable --steps 6000 --seed 0
  dpmrt train-reference classifier -o digits-classifier
  dpmrt train-reference reader -o digits-reader --force
  dpmrt train-reference unet -o digits-sub-vp --loss sub-vp --minutes 10
  dpmrt train-reference planar -o plane --loss learned-range
"""


@click.command("train-reference", epilog=_EPILOG, context_settings={"show_default": True})
@click.argument("network", type=click.Choice(list(THREADS)), default="unet")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--minutes",
    type=float,
    show_default="18 for unet, 4 for classifier, 1 for reader; a day for planar and with --steps",
    help="Wall-clock limit. The learning rate falls to nothing over this time.",
)
@click.option(
    "--steps",
    type=int,
    show_default="600 for planar, unless --minutes is given",
    help="Stop after so many steps; the same seed then gives the same weights.",
)
@click.option(
    "--loss", type=click.Choice(LOSSES), default="ddpm", help="unet and planar: what the network is to learn."
)
@click.option("--seed", type=int, default=0, help="Seed of the weights, the noise and the order of the data.")
@click.option("--batch", type=int, show_default="64; 512 for planar", help="Samples per step.")
@click.option("--lr", type=float, show_default="0.001; 0.004 for planar", help="Highest learning rate.")
@click.option("--warmup", type=int, show_default="200; 50 for planar", help="Steps over which the rate rises.")
@click.option(
    "--ema",
    type=float,
    show_default="0.999; 0.99 for planar",
    help="Decay of the averaged weights, which are what is saved.",
)
@click.option(
    "--class-dropout",
    type=float,
    default=0.12,
    help="unet only: share of labels replaced by the null class, for guidance.",
)
@click.option("--threads", type=int, show_default="2 for unet, 1 for the others", help="CPU threads.")
@click.option("--force", is_flag=True, show_default=False, help="Replace the training that is there already.")
def command(
    network: str,
    out: Path,
    minutes: float | None,
    threads: int | None,
    loss: str,
    class_dropout: float,
    force: bool,
    **options: Any,
) -> None:
    """Train a reference NETWORK and write it to a folder: the first three on scikit-learn's digits.

    \b
    unet: a class-conditional diffusion UNet, in the layout of a diffusers pipeline.
    classifier: p(digit | noisy image, time), for classifier guidance.
    reader: reads clean digits, to judge samples.
    planar: a small network of three Gaussians in the plane; it takes seconds.

    --loss, of the unet and of planar: ddpm (the noise), velocity (v), learned-range (the noise and the variance),
    smld (the score at discrete noise levels), and score matching in continuous time for the SDEs ve, vp and sub-vp,
    also with the weight of the likelihood. The scheduler config that is written says which it was.

    The folder appears when training has ended; a run that is interrupted leaves nothing behind.
    """
    try:
        from dpmrt.export.reference.loop import TrainOptions
        from dpmrt.export.reference.train import train_unet
        from dpmrt.export.reference.train_classifiers import train_classifier, train_reader
        from dpmrt.export.reference.train_planar import OPTIONS, export_arguments, train_planar
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "train-reference needs a library that is not installed",
            got=f"no module named {error.name!r}",
            expected="torch, diffusers, scikit-learn and safetensors",
            fix="pip install 'dpmrt[export]'",
        ) from error

    if loss != "ddpm" and network not in ("unet", "planar"):
        raise OptionError(f"{network} has a loss of its own", got=f"--loss {loss}", expected="unet or planar")
    usual = {"threads": THREADS[network], **(OPTIONS if network == "planar" else {})}
    if minutes is not None and options["steps"] is None:
        usual.pop("steps", None)
    given = {key: value for key, value in {**options, "threads": threads}.items() if value is not None}
    wanted = {**usual, **given}
    if minutes is None:
        # A run of so many steps is wanted for its repeatability, which a clock that ends it would spoil.
        minutes = LONGEST_MINUTES if "steps" in wanted else MINUTES[network]
    chosen = TrainOptions(minutes=minutes, **wanted)
    with terminated_like_interrupted(), _shown(network) as on_progress:
        if network == "unet":
            train_unet(out, chosen, loss=loss, class_dropout=class_dropout, force=force, on_progress=on_progress)
        elif network == "classifier":
            train_classifier(out, chosen, force=force, on_progress=on_progress)
        elif network == "reader":
            train_reader(out, chosen, force=force, on_progress=on_progress)
        else:
            train_planar(out, chosen, loss=loss, force=force, on_progress=on_progress)
    click.echo(f"{network} trained; see {out / 'training.json'}")
    if network == "planar":
        made = export_arguments(out, loss)
        options_of = " ".join(f"--{key} {value}" for key, value in made.items() if key != "source")
        click.echo(f"next: dpmrt export {made['source']} {options_of} -o BUNDLE")


@contextmanager
def _shown(network: str) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal, and a line every ten seconds in a log."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _logger()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[state]}"),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(network, total=1.0, state="")
        yield lambda now: bar.update(task, completed=now.fraction, state=_state(now))


def _logger() -> Callable[[Progress], None]:
    due = 0.0

    def log(now: Progress) -> None:
        nonlocal due
        if now.seconds >= due or now.fraction >= 1:
            click.echo(_state(now), err=True)
            due = now.seconds + _LOG_EVERY_SECONDS

    return log


def _state(now: Progress) -> str:
    left = now.seconds / now.fraction - now.seconds if now.fraction > 0 else 0.0
    return (
        f"step {now.step}  loss {now.smooth_loss:.4f}  ema {now.ema:.4f}  "
        f"{now.step / max(now.seconds, 1e-9):.1f} it/s  {int(left) // 60}:{int(left) % 60:02d} left"
    )
