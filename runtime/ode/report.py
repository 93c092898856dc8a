"""What an ODE solver did: where it stepped, and how often it asked the network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: the states of a report: under way, at the end, out of calls, given up, stopped by NaN or infinity
STATUSES = ("running", "done", "budget", "failed", "diverged")


@dataclasses.dataclass
class OdeReport:
    """The course of a run: `t`, `lambda_` and `called` have an entry for the start and for each accepted step.

    `lambda_` is log(alpha / sigma), `called` the network calls made until then; `calls` are all of them, those of
    rejected steps, Jacobians and a final denoising step among them.
    """

    method: str
    variable: str
    rtol: float
    atol: float
    max_calls: int
    calls: int = 0
    jacobians: int = 0
    status: str = "running"
    message: str = ""
    t: list[float] = dataclasses.field(default_factory=list)
    lambda_: list[float] = dataclasses.field(default_factory=list)
    called: list[int] = dataclasses.field(default_factory=list)

    @property
    def steps(self) -> int:
        """Return the number of accepted steps."""
        return max(len(self.t) - 1, 0)

    def end(self, status: str, message: str = "") -> OdeReport:
        """Note how the run ended; return the report."""
        self.status, self.message = status, message
        return self

    def to_json(self) -> Mapping[str, Any]:
        """Return the report as plain numbers, lists and texts; an infinite lambda is None."""
        levels = [value if math.isfinite(value) else None for value in self.lambda_]
        return {**dataclasses.asdict(self), "lambda_": levels, "steps": self.steps}

    def plot(self, path: str | Path) -> Path:
        """Draw the noise level that each call brought, and the length of each step, to a .png."""
        from dpmrt.files import atomic_write
        from dpmrt.runtime.charts import draw_course

        title = f"{self.method} in {self.variable}: {self.steps} steps, {self.calls} network calls"
        with atomic_write(Path(path)) as stream:
            draw_course(stream, self.lambda_, self.called, title)
        return Path(path)
