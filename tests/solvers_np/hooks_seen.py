"""Hooks for tests: what they saw, and changes that are known in closed form."""

from __future__ import annotations

from typing import Any

from dpmrt.solvers_np import CallView, Hook, RunView, StateView
from dpmrt.solvers_np.prediction import to_x0


class Seen(Hook):
    """Changes nothing, and keeps what it was shown."""

    def __init__(self) -> None:
        self.plans: list[Any] = []
        self.calls: list[CallView] = []
        self.steps: list[StateView] = []

    def start(self, run: RunView) -> None:
        self.plans.append(run.plan)

    def output(self, call: CallView) -> None:
        self.calls.append(call)

    def state(self, step: StateView) -> None:
        self.steps.append(step)


class ToX0(Hook):
    """Makes every network say that x0 is `value`, whatever it predicts."""

    def __init__(self, prediction: str, value: float) -> None:
        self.prediction, self.value = prediction, value

    def output(self, call: CallView) -> None:
        state, raw = to_x0(self.prediction, call.level)
        call.raw[...] = (self.value - state * call.x) / raw


class Shift(Hook):
    """Adds to the state after every row."""

    def __init__(self, by: float) -> None:
        self.by = by

    def state(self, step: StateView) -> None:
        step.x += self.by
