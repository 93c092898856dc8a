"""Arrays on the command line: read from .npy files, written to one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.npy import read_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


def parse_files(flag: str, texts: Iterable[str]) -> dict[str, Path]:
    """Return the files that NAME=FILE texts name; a name may come once.

    >>> parse_files("--condition", ["time_ids=sizes.npy"])["time_ids"].name
    'sizes.npy'
    """
    files: dict[str, Path] = {}
    for text in texts:
        name, _, file = text.partition("=")
        if not name or not file:
            raise OptionError(
                f"{flag} names no file", got=text, expected="NAME=FILE.npy", fix=f"{flag} text_embeds=pooled.npy"
            )
        if name in files:
            raise OptionError(f"{flag} {name} is given twice", got=text, expected="each name once")
        files[name] = Path(file)
    return files


def read_noise(path: Path) -> NDArray[Any]:
    """Return the initial noise of a .npy file."""
    array = read_array("the noise", path)
    if array.ndim < 2:
        raise ArrayError("the noise is no batch of samples", got=path, expected="one array (batch, ...) in a .npy")
    return array


def read_arrays(flag: str, files: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
    """Return the arrays of .npy files, by their names."""
    return {name: read_array(f"{flag} {name}", path) for name, path in files.items()}


def write_array(out: Path, samples: NDArray[Any]) -> None:
    """Write an array as a .npy file that appears whole or not at all."""
    import numpy as np

    from dpmrt.files import atomic_write

    # Not np.save, which writes past the stream and then cannot say why the disk refused.
    header = np.lib.format.header_data_from_array_1_0(samples)
    with atomic_write(out) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(samples.data)
