"""`dpmrt train-reference`: train the small networks that the demo and the tests run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import MissingExtraError
from dpmrt.export.cli.termination import terminated_like_interrupted

if TYPE_CHECKING:
    from dpmrt.export.reference.loop import Progress

MINUTES = {"unet": 18.0, "classifier": 4.0, "reader": 1.0}
LONGEST_MINUTES = 1440.0
# The classifiers are so small that handing work to a second thread costs more than it saves.
THREADS = {"unet": 2, "classifier": 1, "reader": 1}
_LOG_EVERY_SECONDS = 10.0

_EPILOG = """\b
Examples:
  dpmrt train-reference unet -o digits-unet
  dpmrt train-reference unet -o quick --minutes 1
  dpmrt train-reference unet -o repeatable --steps 6000 --seed 0
  dpmrt train-reference classifier -o digits-classifier
  dpmrt train-reference reader -o digits-reader --force
"""


@click.command("train-reference", epilog=_EPILOG, context_settings={"show_default": True})
@click.argument("network", type=click.Choice(list(MINUTES)), default="unet")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option(
    "--minutes",
    type=float,
    show_default="18 for unet, 4 for classifier, 1 for reader; a day with --steps",
    help="Wall-clock limit. The learning rate falls to nothing over this time.",
)
@click.option("--steps", type=int, help="Stop after so many steps; the same seed then gives the same weights.")
@click.option("--seed", type=int, default=0, help="Seed of the weights, the noise and the order of the data.")
@click.option("--batch", type=int, default=64, help="Images per step.")
@click.option("--lr", type=float, default=1e-3, help="Highest learning rate.")
@click.option("--warmup", type=int, default=200, help="Steps over which the rate rises.")
@click.option("--ema", type=float, default=0.999, help="Decay of the averaged weights, which are what is saved.")
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
    class_dropout: float,
    force: bool,
    **options: Any,
) -> None:
    """Train a reference NETWORK on scikit-learn's digits and write it to a folder.

    unet: a class-conditional diffusion UNet, in the layout of a diffusers pipeline.
    classifier: p(digit | noisy image, time), for classifier guidance.
    reader: reads clean digits, to judge samples.

    The folder appears when training has ended; a run that is interrupted leaves nothing behind.
    """
    try:
        from dpmrt.export.reference.loop import TrainOptions
        from dpmrt.export.reference.train import train_unet
        from dpmrt.export.reference.train_classifiers import train_classifier, train_reader
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "train-reference needs a library that is not installed",
            got=f"no module named {error.name!r}",
            expected="torch, diffusers, scikit-learn and safetensors",
            fix="pip install 'dpmrt[export]'",
        ) from error

    if minutes is None:
        # A run of so many steps is wanted for its repeatability, which a clock that ends it would spoil.
        minutes = MINUTES[network] if options["steps"] is None else LONGEST_MINUTES
    chosen = TrainOptions(
        minutes=minutes,
        threads=THREADS[network] if threads is None else threads,
        **options,
    )
    with terminated_like_interrupted(), _shown(network) as on_progress:
        if network == "unet":
            train_unet(out, chosen, class_dropout=class_dropout, force=force, on_progress=on_progress)
        elif network == "classifier":
            train_classifier(out, chosen, force=force, on_progress=on_progress)
        else:
            train_reader(out, chosen, force=force, on_progress=on_progress)
    click.echo(f"{network} trained; see {out / 'training.json'}")


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
