"""One pass over the executor's rows: a small matrix applied to all of them, in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: columns handled at once: enough to hide the cost of a call, few enough to stay in the cache
_CHUNK = 32768


class Pass:
    """rows[targets] = (matrix @ rows)[targets], computed in chunks so that no large temporary is made."""

    def __init__(self, rows: NDArray[Any], matrix: NDArray[np.float64], targets: list[int]) -> None:
        last = 1 + int(np.flatnonzero(matrix[targets].any(axis=0)).max(initial=0))
        self._weights = np.ascontiguousarray(matrix[targets, :last], dtype=rows.dtype)
        size = rows.shape[1]
        self._scratch = np.empty((len(targets), min(size, _CHUNK)), rows.dtype)
        self._chunks = []
        for start in range(0, size, _CHUNK):
            stop = min(start + _CHUNK, size)
            scratch = self._scratch[:, : stop - start]
            moves = [(rows[target, start:stop], scratch[k]) for k, target in enumerate(targets)]
            self._chunks.append((rows[:last, start:stop], scratch, moves))

    def __call__(self) -> None:
        """Apply the pass."""
        matmul, copy, weights = np.matmul, np.copyto, self._weights
        for source, scratch, moves in self._chunks:
            matmul(weights, source, out=scratch)
            for target, row in moves:
                copy(target, row)
