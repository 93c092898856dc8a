"""Problems of known solution for adaptive runs, and a network that counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from problems import QUANTILES, Mixture

from dpmrt.solvers_np import Level, NoiseSchedule


def level_at(schedule: NoiseSchedule, t: float) -> Level:
    return Level(t, *(float(f(t)) for f in (schedule.alpha, schedule.sigma, schedule.in_scale)))


def exact(data: Mixture, schedule: NoiseSchedule, span: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability flow's state at both ends of a run."""
    ends = (span.get("t_start", schedule.t_max), span.get("t_end", schedule.t_min))
    quantiles = np.concatenate([QUANTILES, 1 - QUANTILES / 2])
    first, last = (data.at(quantiles, level_at(schedule, t)) for t in ends)
    return first, last


class Counted:
    """A network that counts how often it is asked."""

    def __init__(self, model: Any) -> None:
        self.calls, self._model = 0, model

    def __call__(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        self.calls += 1
        return self._model(x, t)
