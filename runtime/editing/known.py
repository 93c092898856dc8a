"""KnownRegion: the hook that keeps a part of the state at an image, noised to the level that the state has."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.runtime.editing.arrays import Floats
from dpmrt.solvers_np import Hook, NoiseSource, RunView, StateView
from dpmrt.solvers_np.execution.hooks import match_state
from dpmrt.solvers_np.plans.parts import state_levels
from dpmrt.solvers_np.prediction import Pair


class KnownRegion(Hook):
    """Where `mask` is 0 the state becomes the image, noised, after each row with a call; at the end, the image.

    The noise is one array for the whole run, or, from a source, fresh each time. `mask` is 1 where the network
    paints; between 0 and 1 both are mixed. Any solver may run below: what it did to the known part is overwritten.

    >>> import numpy as np
    >>> from dpmrt.solvers_np import compile_plan, run_plan
    >>> image, mask = np.array([[0.25, 0.5]]), np.array([[0.0, 1.0]])
    >>> hook = KnownRegion(image, mask, np.ones((1, 2)))
    >>> run_plan(compile_plan("ddim", "linear", 4), lambda x, t: 0 * x, np.ones((1, 2)), hooks=[hook])[0, 0].item()
    0.25
    """

    def __init__(self, image: Floats, mask: Floats, noise: Floats | NoiseSource) -> None:
        self._given = image, mask
        self._noise = noise
        self._levels: list[Pair | None] = []

    def start(self, run: RunView) -> None:
        """Bring image and mask to where the state is, and work out the levels of the plan."""
        image, mask = self._given
        self._image, self._painted = (match_state(n, v, run) for n, v in (("the image", image), ("the mask", mask)))
        self._kept = 1 - self._painted
        source = getattr(self._noise, "normal", None)
        self._draw = (lambda: source(tuple(run.x.shape))) if source is not None else (lambda: self._noise)
        self._fixed = None if source is not None else match_state("the noise", self._noise, run)
        self._levels = state_levels(run.plan)

    def state(self, step: StateView) -> None:
        """Put the known part in."""
        if step.last:
            known: Any = self._image
        elif not step.called:
            return  # noise was added to the whole state, and what is known is at its level already
        else:
            level = self._levels[step.row + 1]
            if level is None:
                raise OptionError(
                    "this plan does not say how much noise its state holds",
                    got=f"row {step.row}",
                    expected="a plan whose rows call the network, or only add noise",
                )
            known = self._at(level, step)
        step.x = self._painted * step.x + self._kept * known

    def _at(self, level: Pair, step: StateView) -> Any:
        kind = step.x.dtype.type
        noise = self._fixed if self._fixed is not None else step.xp.asarray(np.asarray(self._draw(), step.x.dtype))
        return kind(level[0]) * self._image + kind(level[1]) * noise
