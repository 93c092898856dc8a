"""Frames that belong together: noise that a clip's frames share, and predictions smoothed along the frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.runtime.editing.arrays import check_number
from dpmrt.runtime.request import check_shape
from dpmrt.solvers_np import CallView, Hook, RunView, make_noise
from dpmrt.solvers_np.options import is_whole, one_of
from dpmrt.solvers_np.prediction import to_x0

MODELS = ("mixed", "progressive")
KERNELS = ("gaussian", "exponential")
#: of (batch, channels, frames, height, width) and (batch, channels, length)
FRAMES = 2


def consistent_noise(
    shape: Sequence[int],
    seed: int | Sequence[int] = 0,
    share: float = 0.5,
    *,
    model: str = "mixed",
    axis: int = FRAMES,
) -> NDArray[np.float32]:
    """Return unit noise of which the frames of a clip have a `share`, 0 to 1, of their variance in common.

    `shape` is (batch, channels, frames, ...), and `axis` that of the frames. "mixed" adds one noise that all frames
    have to noise of their own, so that any two correlate by `share`; "progressive" makes each frame of the one before
    and fresh noise, so that neighbours correlate by the root of `share` and those k apart by its k-th power. (The
    noise models of Ge et al. 2023, "Preserve your own correlation", whose alpha^2 / (1 + alpha^2) is `share`.)

    >>> noise = consistent_noise((1, 4, 6, 32, 32), seed=3, share=0.9)
    >>> frames = noise.reshape(4, 6, -1).transpose(1, 0, 2).reshape(6, -1)
    >>> round(float(np.corrcoef(frames)[0, 5]), 1)
    0.9
    """
    size = check_shape(shape)
    k = _axis(axis, len(size))
    share = check_number("share", share, 0, 1)
    one_of("model", model, MODELS)
    stream = make_noise("torch-cpu", seed)
    own: NDArray[np.float32] = stream.normal(size)
    kept, fresh = np.float32(share**0.5), np.float32((1 - share) ** 0.5)
    if model == "mixed":
        common = stream.normal(tuple(1 if i == k else n for i, n in enumerate(size)))
        own *= fresh
        own += kept * common
        return own
    frames = np.moveaxis(own, k, 0)
    for i in range(1, len(frames)):
        frames[i] = kept * frames[i - 1] + fresh * frames[i]
    return own


class TemporalSmoothing(Hook):
    """Smooths the network's x0 along the frames, whatever it predicts and whichever solver runs.

    x0 becomes (1 - strength) x0 + strength (kernel * x0). The kernel is "gaussian", of standard deviation `width`
    frames, or "exponential", falling by e over `width` frames; at the ends of a clip it is cut off and weighs what is
    left, so a clip that stands still stays as it is. `prediction` is the bundle's; `axis` that of the frames.

    >>> TemporalSmoothing("epsilon", strength=0.5, width=1.5).kernel(3).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        prediction: str,
        strength: float = 0.5,
        *,
        width: float = 1.0,
        kernel: str = "gaussian",
        axis: int = FRAMES,
    ) -> None:
        self._strength = check_number("strength", strength, 0, 1)
        self._width = check_number("width", width, 1e-3, 1e6)
        one_of("kernel", kernel, KERNELS)
        self._prediction, self._kernel, self._given_axis = prediction, kernel, axis

    def kernel(self, frames: int) -> NDArray[np.float64]:
        """Return the weights, (frames, frames), with which frames enter into each."""
        apart = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames))) / self._width
        weights = np.exp(-(apart**2) / 2) if self._kernel == "gaussian" else np.exp(-apart)
        blurred: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
        return blurred

    def start(self, run: RunView) -> None:
        """Work out the kernel for the clip's length."""
        self._axis = _axis(self._given_axis, run.x.ndim)
        frames = run.x.shape[self._axis]
        whole = (1 - self._strength) * np.eye(frames) + self._strength * self.kernel(frames)
        self._weights = run.xp.asarray(whole.astype(run.x.dtype))

    def output(self, call: CallView) -> None:
        """Rewrite the raw output as that of the smoothed x0."""
        state, raw = to_x0(self._prediction, call.level)
        if raw == 0:
            return  # no noise left: the output has no part in x0
        kind = call.raw.dtype.type
        x0 = kind(state) * call.x + kind(raw) * call.raw
        call.raw = call.raw + (self._smoothed(x0) - x0) / kind(raw)

    def _smoothed(self, x0: Any) -> Any:
        shape = tuple(x0.shape)
        behind = math.prod(shape[self._axis + 1 :])
        return (self._weights @ x0.reshape(-1, shape[self._axis], behind)).reshape(shape)


def _axis(axis: int, count: int) -> int:
    if not is_whole(axis) or not 1 <= int(axis) < count:
        raise OptionError(
            "axis is no axis of the frames",
            got=repr(axis),
            expected=f"1 to {count - 1}, behind the batch" if count > 1 else "samples of more than one axis",
        )
    return int(axis)
