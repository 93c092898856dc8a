"""Arrays in .npy files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmrt.errors import ArrayError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_array(what: str, path: Path) -> NDArray[Any]:
    """Return the one array of a .npy file; nothing is unpickled."""
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArrayError(
            f"{what} cannot be read", got=f"{path}: {error}", expected="an array that numpy.save wrote"
        ) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ArrayError(f"{what} is no single array", got=path, expected="one array in a .npy")
    return array
