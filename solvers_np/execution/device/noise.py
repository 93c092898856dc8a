"""Fresh noise on a device: drawn on the host in the plan's order, for all rows beforehand where that fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError
from dpmrt.solvers_np.execution.composition import Step
from dpmrt.solvers_np.execution.device.place import Place, address
from dpmrt.solvers_np.noise import NoiseSource, asker

#: more noise than this is copied row by row, while the device works on the rows before
MOST_TABLE_BYTES = 512 << 20


class DeviceNoise:
    """Rows of noise on a device: one for every draw of the plan (`whole`), or one that is written again and again."""

    def __init__(self, place: Place, shape: tuple[int, ...], pitch: int, dtype: Any, draws: int) -> None:
        self._place, self._shape = place, shape
        self._size = int(np.prod(shape))
        self.whole = draws * pitch * np.dtype(dtype).itemsize <= MOST_TABLE_BYTES
        self._host = np.zeros((draws if self.whole else 1, pitch), dtype)
        self._table = place.zeros(self._host.shape, dtype)

    def row(self, draw: int) -> Any:
        """Return the row that a draw is in."""
        return self._table[draw if self.whole else 0]

    def origin(self, draw: int) -> int:
        """Return the address of the row that a draw is in."""
        return address(self.row(draw))

    def draw_all(self, source: NoiseSource, steps: Sequence[Step]) -> None:
        """Draw for every row that wants noise, and copy it all."""
        ask = asker(source)
        for k, step in enumerate(step for step in steps if step.noisy):
            self._fill(k, np.asarray(ask(self._shape, *step.span)))
        self._place.upload(self._table, self._host)

    def draw_one(self, source: NoiseSource, step: Step) -> None:
        """Draw for one row, and copy it in the order of the stream."""
        self._fill(0, np.asarray(asker(source)(self._shape, *step.span)))
        self._place.upload(self._table, self._host)

    def _fill(self, row: int, z: NDArray[Any]) -> None:
        if z.shape != self._shape:
            raise ArrayError("the noise source gave the wrong shape", got=z.shape, expected=self._shape)
        self._host[row, : self._size] = z.reshape(-1)
