"""How far a calibration has come, as a file that a later run goes on from."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from dpmrt.engines.json_file import write_json
from dpmrt.errors import OptionError


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that decides what is measured. Runs of equal settings may go on from each other."""

    times: tuple[float, ...]
    samples: int
    batch: int
    seed: int
    data_sha256: str
    network_sha256: str
    scheduler_sha256: str
    engine: str
    conditions: dict[str, str]


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mean and standard error at the times that are done, and at the next one what is known sample by sample.

    Of a sample that is the mean square of the predicted noise, and that of the noise itself.
    """

    format: Literal["dpmrt-calibration"]
    version: Literal[1]
    settings: Settings
    power: tuple[float, ...] = ()
    error: tuple[float, ...] = ()
    partial: tuple[tuple[float, float], ...] = ()

    @staticmethod
    def fresh(settings: Settings) -> Checkpoint:
        """Return where every calibration begins."""
        return Checkpoint("dpmrt-calibration", 1, settings)

    def with_batch(self, pairs: Sequence[tuple[float, float]]) -> Checkpoint:
        """Return what is known with one more batch; the last one of a time makes a mean of its samples."""
        partial = (*self.partial, *pairs)
        if len(partial) < self.settings.samples:
            return msgspec.structs.replace(self, partial=partial)
        mean, error = controlled_mean(partial)
        return msgspec.structs.replace(self, power=(*self.power, mean), error=(*self.error, error), partial=())


def controlled_mean(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the mean of the first numbers, and its standard error, knowing that the second have the mean 1.

    What the noise drawn had too much or too little of is taken off by regression (a control variate). Where there is
    nearly nothing but noise, the network's prediction repeats it, and next to no error is left.

    >>> mean, error = controlled_mean([(2 + 3 * (q - 1), q) for q in (0.5, 0.8, 1.1, 1.9)])
    >>> round(mean, 9), round(error, 9)
    (2.0, 0.0)
    """
    power, noise = np.asarray(pairs).T
    spread = noise - noise.mean()
    slope = float(spread @ power / (spread @ spread)) if spread.any() else 0.0
    rest = power - slope * (noise - 1.0)
    mean = max(float(rest.mean()), 0.0)
    return mean, float(rest.std(ddof=2) / np.sqrt(len(rest)))


def write_checkpoint(path: Path, state: Checkpoint) -> None:
    """Write a checkpoint; an older one is replaced whole."""
    write_json(path, state)


def read_checkpoint(path: Path, settings: Settings) -> Checkpoint:
    """Return the checkpoint at `path`, or where every calibration begins if there is none.

    One that does not belong to these settings is refused, with what differs.
    """
    try:
        state = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except FileNotFoundError:
        return Checkpoint.fresh(settings)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise OptionError(
            "the checkpoint cannot be read",
            got=f"{path}: {error}",
            expected="what a calibration left",
            fix=_anew(path),
        ) from None
    for name in settings.__struct_fields__:
        before, now = getattr(state.settings, name), getattr(settings, name)
        if before != now:
            raise OptionError(
                "the checkpoint is of another calibration",
                got=f"{name} = {_brief(before)} in {path}",
                expected=f"{name} = {_brief(now)}",
                fix=f"ask for the same as before, and it goes on from there; {_anew(path)}",
            )
    done, begun = len(state.power), len(state.partial)
    unfinished = (
        begun % settings.batch == 0 and begun < settings.samples and (done < len(settings.times) or not begun)
    )
    if done != len(state.error) or done > len(settings.times) or not unfinished:
        raise OptionError(
            "the checkpoint does not hold together",
            got=f"{done} means, {len(state.error)} errors and {begun} samples in {path}",
            expected="whole batches of the times asked for",
            fix=_anew(path),
        )
    return state


def _anew(path: Path) -> str:
    return f"--restart (restart=True) begins anew, as does `rm {shlex.quote(str(path))}`"


def _brief(value: object) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} times, {value[0]:g} to {value[-1]:g}" if value else "no times"
    return str(value)
