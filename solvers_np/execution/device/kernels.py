"""Launches: kernels with their arguments fixed, so that running one is a call without arguments."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.solvers_np.execution.composition import Update
from dpmrt.solvers_np.execution.device import langevin_source, source
from dpmrt.solvers_np.execution.device.place import Place, address
from dpmrt.solvers_np.plans.instructions import Clip, Instruction, Langevin, LearnedRange, LearnedVariance

Launch = Callable[[], None]
_THREADS, _MOST_BLOCKS = 256, 4096
#: one block a sample does all of dynamic thresholding
_WIDE_BLOCK = 1024


class Kernels:
    """Makes launches for a place. The current stream when one is called is the stream it runs on."""

    def __init__(self, place: Place) -> None:
        self._xp = place.xp

    def update(
        self, update: Update, rows: Sequence[Any], weights: Any, flag: int, kinds: dict[int, int], state: int
    ) -> Launch:
        """Return rows[targets] = (matrix @ rows)[targets], with what of the sources and the state to flag."""
        used, dtype, packs = used_rows(update), rows[state].dtype, rows[state].nbytes // source.PACK_BYTES
        # The state comes first, as the kernel looks at its first target.
        targets = ordered_targets(update, state)
        kernel = self._kernel(*source.update_source(len(targets), len(used), dtype.name))
        marks = sum(kinds.get(column, 0) << (4 * k) for k, column in enumerate(used[: source.MOST_MARKED]))
        kind = source.BAD_STATE if targets[0] == state and kinds else 0
        pointers = [np.uint64(address(rows[k])) for k in (*targets, *used)]
        head = (np.int64(packs), np.uint64(address(weights)), np.uint64(flag), np.uint64(marks), np.uint32(kind))
        return _spread(kernel, packs, (*head, *pointers))

    def move(
        self, origin: Any, target: Any, block: int, *, offsets: tuple[int, int], pitches: tuple[int, int],
        outer: int, copies: tuple[int, int] = (1, 0),
    ) -> Launch:  # fmt: skip
        """Return a copy of `outer` blocks of numbers, from and to an offset and a pitch, cast on the way.

        `copies` is how many times, and how far apart.
        """
        kernel = self._kernel(*source.move_source(origin.dtype.name, target.dtype.name))
        begin, end = _at(origin, offsets[0]), _at(target, offsets[1])
        args = (np.int64(outer * block), np.int64(block), begin, np.int64(pitches[0]), end, np.int64(pitches[1]))
        return _spread(kernel, outer * block, (*args, np.int64(copies[0]), np.int64(copies[1])))

    def combine(
        self, raw: Any, target: Any, block: int, *, null: int, pitches: tuple[int, int], outer: int, scale: Any
    ) -> Launch:
        """Return guidance: raw holds what was conditioned, and at the offset `null` what was not."""
        kernel = self._kernel(*source.combine_source(raw.dtype.name, target.dtype.name))
        args = (np.int64(outer * block), np.int64(block), _at(raw, 0), _at(raw, null), np.int64(pitches[0]))
        return _spread(kernel, outer * block, (*args, _at(target, 0), np.int64(pitches[1]), _at(scale, 0)))

    def instruction(self, instruction: Instruction, x0: Any) -> Launch:
        """Return a non-linear instruction, applied in place to a batch of x0."""
        real = x0.dtype.type
        if isinstance(instruction, Clip):
            kernel = self._kernel(*source.clip_source(x0.dtype.name))
            return _spread(kernel, x0.size, (np.int64(x0.size), _at(x0, 0), real(instruction.limit)))
        kernel = self._kernel(*source.threshold_source(x0.dtype.name))
        size = x0.size // len(x0)
        position = instruction.ratio * (size - 1)
        low = math.floor(position)
        high = min(low + 1, size - 1)
        where = (np.int64(size), _at(x0, 0), np.int64(low), np.int64(high))
        args = (*where, real(position - low), real(min(instruction.limit, float(np.finfo(real).max))))
        return functools.partial(kernel, (len(x0),), (_WIDE_BLOCK,), args)

    def learned(
        self, instruction: LearnedRange | LearnedVariance, second: Any, noise: tuple[int, Any], flag: int
    ) -> Launch:
        """Return z = deviation * noise; `second` is the whole output, whose second half is the variance."""
        origin, z = noise
        real, block = z.dtype.type, z.size // len(z)
        half, shift = 0.0, 0.0
        if isinstance(instruction, LearnedRange):
            half = (instruction.log_large - instruction.log_small) / 4
            shift = half + instruction.log_small / 2
        kernel = self._kernel(*source.learned_source(z.dtype.name))
        place = (np.int64(z.size), np.int64(block), _at(second, block), np.int64(2 * block))
        scale = (real(half), real(shift), np.uint32(isinstance(instruction, LearnedVariance)))
        args = (*place, np.uint64(origin), _at(z, 0), *scale, np.uint64(flag), np.uint32(source.BAD_SECOND))
        return _spread(kernel, z.size, args)

    def langevin(
        self, instruction: Langevin, score: Any, noise: tuple[int, Any], norms: Any, flag: int
    ) -> tuple[Launch, ...]:
        """Return what scales the score, and z = h * noise, by the step of their norms; `norms` is room for them."""
        origin, z = noise
        name, batch, block = z.dtype.name, len(z), z.size // len(z)
        where = (_at(score, 0), np.uint64(origin))
        measure = self._kernel(*langevin_source.norms_source(name))
        settle = self._kernel(*langevin_source.step_source(name))
        scale = self._kernel(*langevin_source.scale_source(name))
        kind = (np.float64(instruction.snr), np.uint32(instruction.per_sample))
        settled = (np.int64(batch), _at(norms, 0), *kind, np.uint64(flag), np.uint32(source.BAD_SCORE))
        threads = (langevin_source.NORM_THREADS,)
        return (
            functools.partial(measure, (batch,), threads, (np.int64(block), *where, _at(norms, 0))),
            functools.partial(settle, (1,), (1,), settled),
            _spread(scale, z.size, (np.int64(z.size), np.int64(block), _at(norms, 0), *where, _at(z, 0))),
        )

    def bytes(self, origin: int, target: Any) -> Launch:
        """Return a copy of all bytes of `target` from an address."""
        kernel = self._kernel(*source.bytes_source())
        return _spread(kernel, target.nbytes, (np.int64(target.nbytes), np.uint64(origin), _at(target, 0)))

    def clear(self, target: Any) -> Launch:
        """Return what sets an array of whole words to zero."""
        words = target.nbytes // 4
        return _spread(self._kernel(*source.clear_source()), words, (np.int64(words), _at(target, 0)))

    def _kernel(self, code: str, name: str) -> Any:
        return _compiled(self._xp, code, name)


def used_rows(update: Update) -> list[int]:
    """Return the rows that an update reads: those that have a weight in any of its targets."""
    matrix = update.matrix[list(update.targets)]
    return [int(k) for k in np.flatnonzero(matrix.any(axis=0))] or [update.targets[0]]


def ordered_targets(update: Update, state: int) -> list[int]:
    """Return the rows that an update writes, the state first."""
    return sorted(update.targets, key=lambda row: (row != state, row))


def packed_weights(update: Update, state: int) -> NDArray[np.float64]:
    """Return the weights as the kernel reads them."""
    return update.matrix[np.ix_(ordered_targets(update, state), used_rows(update))].ravel()


@functools.lru_cache(maxsize=256)
def _compiled(xp: Any, code: str, name: str) -> Any:
    # No option may let the compiler approximate: NaN is looked for by arithmetic.
    return xp.RawKernel(code, name)


def _spread(kernel: Any, count: int, args: tuple[Any, ...]) -> Launch:
    blocks = max(1, min(-(-count // _THREADS), _MOST_BLOCKS))
    return functools.partial(kernel, (blocks,), (_THREADS,), args)


def _at(array: Any, offset: int) -> np.uint64:
    return np.uint64(address(array) + offset * array.dtype.itemsize)
