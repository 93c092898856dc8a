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
    """Mean and standard error at the times that are done, and at the next one what is known sample by sample."""

    format: Literal["dpmrt-calibration"]
    version: Literal[1]
    settings: Settings
    power: tuple[float, ...] = ()
    error: tuple[float, ...] = ()
    partial: tuple[float, ...] = ()

    @staticmethod
    def fresh(settings: Settings) -> Checkpoint:
        """Return where every calibration begins."""
        return Checkpoint("dpmrt-calibration", 1, settings)

    def with_batch(self, powers: Sequence[float]) -> Checkpoint:
        """Return what is known with one more batch; the last one of a time makes a mean of its samples."""
        partial = (*self.partial, *powers)
        if len(partial) < self.settings.samples:
            return msgspec.structs.replace(self, partial=partial)
        mean, error = float(np.mean(partial)), float(np.std(partial, ddof=1) / np.sqrt(len(partial)))
        return msgspec.structs.replace(self, power=(*self.power, mean), error=(*self.error, error), partial=())


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
