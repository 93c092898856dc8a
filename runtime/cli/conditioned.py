"""What samples are conditioned on, by flags: classes, arrays, what guidance moves away from, and guidance itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpmrt.errors import OptionError
from dpmrt.runtime.cli.arrays import parse_files, read_arrays
from dpmrt.runtime.cli.guidance import GUIDANCE, AskedGuidance
from dpmrt.runtime.cli.options import counted, gathered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dpmrt.runtime.pipeline import Pipeline


class Conditioned:
    """The flags, parsed; `read` reads their files, and `settle` says how many samples there are."""

    def __init__(
        self, label: str | None, conditions: tuple[str, ...], negative: tuple[str, ...], **guidance: Any
    ) -> None:
        self._guides = AskedGuidance(**guidance)
        self._label = label
        self._labels: list[int] | None = None
        self._given = parse_files("--condition", conditions)
        self._away = parse_files("--negative", negative)
        self._arrays: dict[str, NDArray[Any]] = {}
        self._opposed: dict[str, NDArray[Any]] = {}

    @property
    def files(self) -> dict[str, Path | None]:
        """Return what is read, by its flag."""
        flags = {"--condition": self._given, "--negative": self._away}
        named = {f"{flag} {name}": path for flag, files in flags.items() for name, path in files.items()}
        return {**named, **self._guides.files}

    @property
    def judged(self) -> dict[str, Any]:
        """Return what asks for the classifier."""
        return self._guides.judged

    def read(self) -> None:
        """Read the arrays of conditions."""
        self._arrays = read_arrays("--condition", self._given)
        self._opposed = read_arrays("--negative", self._away)

    def settle(self, pipeline: Pipeline, batch: int | None, first: NDArray[Any] | None = None) -> int:
        """Return how many samples there are: as asked for, as images, or as labels, scales or conditions."""
        self._labels = _parse_labels(self._label, pipeline.bundle.classes)
        labels = len(self._labels or ())
        if batch is None:
            rows = [len(array) for array in self._arrays.values() if array.ndim]
            batch = len(first) if first is not None else max(1, labels, self._guides.wanted, *rows)
        if labels > batch > 0:
            raise OptionError(
                "there are more labels than samples",
                got=f"{counted(labels, 'label')}, {counted(batch, 'sample')}",
                expected="no more labels than samples, whose number --batch or --noise sets",
                fix="leave out --batch and --noise for one sample a label",
            )
        return batch

    def arguments(self, batch: int) -> dict[str, Any]:
        """Return what `Pipeline.sample` is to be given for so many samples."""
        labels = self._labels
        return {
            "label": None if labels is None else [labels[k % len(labels)] for k in range(batch)],
            "conditions": self._arrays,
            "negative": self._opposed,
            **self._guides.arguments(batch),
        }


CONDITIONED = gathered(
    "given",
    Conditioned,
    *GUIDANCE,
    click.option("--label", help="A class, a list as 0,1,2 or `all`; a list is cycled to fill the batch."),
    click.option(
        "--condition", "conditions", multiple=True, metavar="NAME=FILE", help="A condition (.npy); repeatable."
    ),
    click.option("--negative", multiple=True, metavar="NAME=FILE", help="What guidance moves away from; repeatable."),
)


def _parse_labels(text: str | None, classes: int | None) -> list[int] | None:
    """Return the classes that --label lists."""
    if text is None:
        return None
    if text == "all":
        if not classes:
            raise OptionError(
                "the bundle does not say which classes it has", got="--label all", expected="a list, as --label 0,1,2"
            )
        return list(range(classes))
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(
            "--label is not a class", got=repr(text), expected="a whole number, a list as 0,1,2, or `all`"
        ) from None
