"""Backward passes as graphs of forward operators, as a classifier's gradient and a vector-Jacobian product are."""

from __future__ import annotations

from dpmrt.export.gradients.check import runner
from dpmrt.export.gradients.trace import Backward, trace_backward

__all__ = ["Backward", "runner", "trace_backward"]
