"""What a scheduler_config.json says, as diffusers understands it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers

from dpmrt.errors import ExportError

SCHEDULER_NAME = "scheduler_config.json"


def scheduler_class(config: Mapping[str, Any]) -> Any:
    """Return the diffusers class that a scheduler config names."""
    name = config.get("_class_name")
    scheduler = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)):
        raise ExportError(
            f"{SCHEDULER_NAME} names no scheduler of diffusers",
            got=f"_class_name = {name!r}",
            expected=f"a scheduler class of diffusers {diffusers.__version__}, such as DPMSolverMultistepScheduler",
        )
    return scheduler
