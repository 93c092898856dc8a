"""`dpmrt likelihood`: log p of data under a bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.cli import UNCHECKED
from dpmrt.runtime.cli.arrays import parse_files, read_arrays, write_array
from dpmrt.runtime.cli.notices import notices
from dpmrt.runtime.cli.progress import progress_bar
from dpmrt.runtime.cli.values import parse_pairs
from dpmrt.runtime.npy import read_array

if TYPE_CHECKING:
    from dpmrt.runtime.likelihood import Likelihood
    from dpmrt.solvers_np import StepEvent

#: of the progress bar, for one sample
_PARTS = 100


@click.command("likelihood", short_help="Work out log p of data under a bundle.")
@click.argument("bundle")
@click.option("--data", "data_file", required=True, type=click.Path(path_type=Path), help="The data (.npy).")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="File to write, .npy or .json.")
@click.option("--label", help="A class for all data, or a list as 0,1,2 with one for each.")
@click.option("--condition", "conditions", multiple=True, metavar="NAME=FILE", help="A condition (.npy); repeatable.")
@click.option("--probes", type=int, default=1, show_default=True, help="Probes of Hutchinson's estimate.")
@click.option("--probe", default="rademacher", show_default=True, help="rademacher or gaussian.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the probes and of dequantisation.")
@click.option("--levels", type=int, default=256, show_default=True, help="Values of the data that bits are for.")
@click.option("--dequantize", is_flag=True, help="Spread each value of the data evenly over its level.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the ODE; repeatable.")
@click.option("--batch", type=int, default=16, show_default=True, help="Samples that go along the ODE together.")
@click.option("--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def command(
    bundle: str,
    data_file: Path,
    out: Path,
    label: str | None,
    conditions: tuple[str, ...],
    probes: int,
    probe: str,
    seed: int,
    levels: int,
    dequantize: bool,
    options: tuple[str, ...],
    batch: int,
    progress: bool | None,
    quiet: bool,
) -> None:
    """Work out the exact log-likelihood, in nats and bits per dimension, of the data in a .npy file, (n, *shape).

    BUNDLE needs a vector-Jacobian graph: dpmrt export SOURCE -o BUNDLE --vjp. The options of the ODE are method,
    rtol, atol, variable, max_calls (of a batch) and start. A .npy gets log p of each sample, a .json all there is.

    \b
    Examples:
      dpmrt likelihood bundles/mine --data images.npy -o nats.npy
      dpmrt likelihood bundles/mine --data images.npy -o bits.json --dequantize --probes 4
      dpmrt likelihood bundles/mine --data images.npy -o bits.json --label 3 --option rtol=1e-4 --option atol=1e-4
    """
    from dpmrt.files import check_writable

    if out.suffix.lower() not in (".npy", ".json"):
        raise OptionError(
            "the output is of an unknown kind", got=str(out), expected="the name of a file that ends in .npy or .json"
        )
    chosen = parse_pairs(options, what="an option of the ODE")
    files = parse_files("--condition", conditions)
    check_writable(out)

    from dpmrt.runtime.loading import load
    from dpmrt.runtime.request import check_whole
    from dpmrt.solvers_np import schedule_from_diffusers

    data = read_array("the data (--data)", data_file)
    if data.ndim < 2 or not len(data):
        raise ArrayError("the data are no batch of samples", got=data.shape, expected="(n, *shape of a sample)")
    given = read_arrays("--condition", files)
    batch = check_whole("--batch", batch, 1, fix="--batch 16")
    labels = _labels(label, len(data))
    chosen |= {"probes": probes, "probe": probe, "levels": levels, "dequantize": dequantize}
    parts: list[Likelihood] = []
    started = time.perf_counter()
    with notices(quiet), load(bundle) as pipeline:
        if pipeline.bundle.inferred and not quiet:
            click.echo(UNCHECKED, err=True)
        schedule = schedule_from_diffusers(pipeline.bundle.scheduler_config)
        least, most = float(schedule.t_min), float(schedule.t_max)
        with progress_bar("likelihood", _PARTS * len(data), progress, quiet) as advance:
            for first in range(0, len(data), batch):
                rows = slice(first, min(first + batch, len(data)))

                def tell(event: StepEvent, rows: slice = rows) -> None:
                    if advance is not None:
                        part = min(max((event.t - least) / (most - least), 0.0), 1.0)
                        advance(int(_PARTS * (rows.start + part * (rows.stop - rows.start))))

                parts.append(
                    pipeline.log_likelihood(
                        data[rows],
                        label=None if labels is None else labels[rows],
                        conditions={n: a[rows] if a.shape[:1] == data.shape[:1] else a for n, a in given.items()},
                        callback=tell,
                        seed=seed + first,
                        **chosen,
                    )
                )
    seconds = time.perf_counter() - started
    told = _joined(parts)
    _write(out, told)
    if not quiet:
        click.echo(
            f"wrote {out}: {len(data)} samples, mean {told['mean_log_p']:.2f} nats, {told['mean_bits_per_dim']:.3f} "
            f"bits/dim; {told['calls']} network calls, {seconds:.2f} s"
        )


def _labels(text: str | None, count: int) -> list[int] | None:
    if text is None:
        return None
    try:
        labels = [int(part) for part in text.split(",")]
    except ValueError:
        labels = []
    if len(labels) not in (1, count):
        raise OptionError("--label does not fit the data", got=repr(text), expected=f"a class, or {count} of them")
    return labels * (count // len(labels))


def _joined(parts: Sequence[Likelihood]) -> dict[str, Any]:
    """Return what all batches said as one, with the mean over all samples and the report of each batch."""
    told = [dict(part.to_json()) for part in parts]
    reports = [entry.pop("report") for entry in told]
    columns: dict[str, Any] = {
        name: [value for entry in told for value in entry[name]] for name in ("log_p", "error", "bits_per_dim")
    }
    means = {f"mean_{name}": sum(columns[name]) / len(columns[name]) for name in ("log_p", "bits_per_dim")}
    return {**told[0], **columns, **means, "calls": sum(report["calls"] for report in reports), "reports": reports}


def _write(out: Path, told: Mapping[str, Any]) -> None:
    import numpy as np

    from dpmrt.files import atomic_write

    if out.suffix.lower() == ".npy":
        write_array(out, np.array(told["log_p"]))
        return
    with atomic_write(out) as stream:
        stream.write((json.dumps(told, indent=2) + "\n").encode())
