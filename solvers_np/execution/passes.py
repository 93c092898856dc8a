"""Updates in NumPy: a small matrix applied to all of the executor's rows, in place, in one pass over memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.solvers_np.execution.composition import Update

Pass = Callable[[], None]
_Chunk = tuple[NDArray[Any], NDArray[Any], list[tuple[NDArray[Any], NDArray[Any]]]]

#: columns handled at once: enough to hide the cost of a call, few enough to stay in the cache
_CHUNK = 32768


class PassMaker:
    """Binds updates to rows. What they need beyond the rows is one scratch block, which all of them share."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._rows = rows
        self._scratch = np.empty((len(rows), min(rows.shape[1], _CHUNK)), rows.dtype)
        self._chunks: dict[tuple[int, tuple[int, ...]], list[_Chunk]] = {}

    def make(self, update: Update) -> Pass:
        """Return a function that applies the update."""
        matrix = update.matrix[list(update.targets)]
        used = 1 + int(np.flatnonzero(matrix.any(axis=0)).max(initial=0))
        weights = np.ascontiguousarray(matrix[:, :used], dtype=self._rows.dtype)
        if (used, update.targets) not in self._chunks:
            self._chunks[used, update.targets] = self._cut(used, update.targets)
        chunks = self._chunks[used, update.targets]
        matmul, copy = np.matmul, np.copyto

        def apply() -> None:
            for source, scratch, moves in chunks:
                matmul(weights, source, out=scratch)
                for target, values in moves:
                    copy(target, values)

        return apply

    def _cut(self, used: int, targets: tuple[int, ...]) -> list[_Chunk]:
        rows, chunks = self._rows, []
        neighbours = targets[-1] - targets[0] == len(targets) - 1
        for start in range(0, rows.shape[1], _CHUNK):
            part = rows[:, start : start + _CHUNK]
            scratch = self._scratch[: len(targets), : part.shape[1]]
            if neighbours:
                moves = [(part[targets[0] : targets[-1] + 1], scratch)]
            else:
                moves = [(part[target], scratch[k]) for k, target in enumerate(targets)]
            chunks.append((part[:used], scratch, moves))
        return chunks
