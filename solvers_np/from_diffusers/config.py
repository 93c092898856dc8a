"""Strict reading of a scheduler's config."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.options import one_of, whole


def class_name(config: Mapping[str, Any]) -> str:
    """Return the scheduler class that a config names."""
    if not isinstance(config, Mapping):
        raise OptionError("the scheduler config is no mapping", got=type(config).__name__, expected="its JSON object")
    name = config.get("_class_name")
    if not isinstance(name, str):
        raise OptionError(
            "the scheduler config names no class",
            got=f"_class_name = {name!r}",
            expected='a diffusers class, as in "_class_name": "DPMSolverMultistepScheduler"',
        )
    return name


class SchedulerConfig:
    """The keys of one scheduler class with its defaults, those of the config over them; others are refused."""

    def __init__(self, name: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        given = {key: value for key, value in config.items() if not key.startswith("_")}
        for key in given:
            if key not in defaults:
                near = [known for known in defaults if key in known.split("_")] or difflib.get_close_matches(
                    key, defaults, n=1
                )
                raise OptionError(
                    f"{name} has no key of this name here",
                    got=f"{key} = {given[key]!r}",
                    expected=", ".join(defaults),
                    fix=f"did you mean {near[0]!r}?" if near else "leave it out, or name a solver that has it",
                )
        self.name = name
        self._values = {**defaults, **given}

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def choice(self, key: str, *allowed: object) -> Any:
        """Return a value that must be one of `allowed`."""
        one_of(f"{self.name}: {key}", self._values[key], allowed)
        return self._values[key]

    def flag(self, key: str) -> bool:
        """Return a value that must be true or false; null counts as false, as in diffusers."""
        value = self._values[key]
        if value is None:
            return False
        one_of(f"{self.name}: {key}", value, (True, False))
        return bool(value)

    def number(self, key: str) -> float:
        """Return a value that must be a number."""
        value = self._values[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise OptionError(f"{self.name}: {key} must be a number", got=repr(value))
        try:
            return float(value)
        except OverflowError:
            raise OptionError(f"{self.name}: {key} is beyond what a float holds", got=repr(value)) from None

    def whole(self, key: str, low: int, high: int | None = None) -> int:
        """Return a value that must be a whole number within bounds."""
        return whole(f"{self.name}: {key}", self._values[key], low, high)

    def limits(self) -> dict[str, Any]:
        """Return the solver options for thresholding, or else for clipping, where the class has them."""
        if "thresholding" in self and self.flag("thresholding"):
            return {
                "threshold": self.number("dynamic_thresholding_ratio"),
                "threshold_max": self.number("sample_max_value"),
            }
        if "clip_sample" in self and self.flag("clip_sample"):
            return {"clip": self.number("clip_sample_range")}
        return {}
