"""Guidance: how strongly, when and by what a sample is moved towards its condition."""

from __future__ import annotations

from dpmrt.runtime.guidance.asked import Guidance
from dpmrt.runtime.guidance.check import check_guidance
from dpmrt.runtime.guidance.scales import Scales

__all__ = ["Guidance", "Scales", "check_guidance"]
