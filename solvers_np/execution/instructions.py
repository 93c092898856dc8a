"""The non-linear operations that a plan may name, applied in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.solvers_np.plans.instructions import (
    Clip,
    DynamicThreshold,
    Instruction,
    Langevin,
    LearnedRange,
    LearnedVariance,
    NoiseInstruction,
)
from dpmrt.solvers_np.plans.plan import StepPlan


def scratch_size(plan: StepPlan, shape: tuple[int, ...]) -> int:
    """Return how many numbers of scratch the plan's instructions need, allocated once."""
    return math.prod(shape[1:]) if any(isinstance(i, DynamicThreshold) for i in plan.instructions) else 0


def apply_instruction(instruction: Instruction, x0: NDArray[Any], scratch: NDArray[Any]) -> None:
    """Apply `instruction` to a batch of x0 predictions, in place."""
    if isinstance(instruction, Clip):
        np.clip(x0, -instruction.limit, instruction.limit, out=x0)
        return
    for sample in x0:
        limit = _percentile(sample, instruction.ratio, scratch)
        limit = min(max(limit, 1.0), instruction.limit)
        np.clip(sample, -limit, limit, out=sample)
        np.divide(sample, sample.dtype.type(limit), out=sample)


def apply_noise_instruction(instruction: NoiseInstruction, z: NDArray[Any], second: NDArray[Any]) -> None:
    """Scale the noise z, in place, by the deviation that the output's second part stands for, which is used up."""
    if isinstance(instruction, LearnedRange):
        half = (instruction.log_large - instruction.log_small) / 4
        np.multiply(second, second.dtype.type(half), out=second)
        np.add(second, second.dtype.type(half + instruction.log_small / 2), out=second)
        np.exp(second, out=second)
        np.multiply(z, second, out=z)
    elif isinstance(instruction, LearnedVariance):
        np.sqrt(second, out=second)
        np.multiply(z, second, out=z)


def apply_langevin(instruction: Langevin, score: NDArray[Any], z: NDArray[Any]) -> bool:
    """Scale score and noise, in place, by the step that their norms set; False, and as they were, where none can be.

    There is no step for a score of zeros, nor for norms that are not finite.
    """
    flat = (score.reshape(len(score), -1), z.reshape(len(z), -1))
    norms = [np.sqrt(np.einsum("ij,ij->i", a, a, dtype=np.float64)) for a in flat]
    measured, drawn = norms if instruction.per_sample else ([norm.mean()] for norm in norms)
    h = instruction.snr * np.asarray(drawn) / np.asarray(measured)
    by = h.astype(z.dtype).reshape(-1, *[1] * (z.ndim - 1))
    square = (h * h).astype(z.dtype).reshape(by.shape)
    if not (np.isfinite(square).all() and np.all(measured)):
        return False
    np.multiply(score, square, out=score)
    np.multiply(z, by, out=z)
    return True


def _percentile(sample: NDArray[Any], ratio: float, scratch: NDArray[Any]) -> float:
    """Return the linearly interpolated quantile of the absolute values."""
    np.abs(sample.reshape(-1), out=scratch)
    position = ratio * (len(scratch) - 1)
    low = math.floor(position)
    high = min(low + 1, len(scratch) - 1)
    scratch.partition((low, high))
    return float(scratch[low] + (scratch[high] - scratch[low]) * scratch.dtype.type(position - low))
