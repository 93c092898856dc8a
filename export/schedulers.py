"""What a scheduler_config.json says, as diffusers understands it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers

from dpmrt.errors import ExportError
from dpmrt.solvers_np.from_diffusers.own_schedule import OWN_SCHEDULE

SCHEDULER_NAME = "scheduler_config.json"


def scheduler_class(config: Mapping[str, Any]) -> Any:
    """Return the diffusers class that a scheduler config names."""
    name = config.get("_class_name")
    if name == OWN_SCHEDULE:
        raise ExportError(
            "diffusers has no scheduler for a schedule of dpmrt's own",
            got=f"_class_name = {name!r}",
            expected=f"a scheduler class of diffusers {diffusers.__version__}",
            fix="compare with torch by another solver of yours: only diffusers' schedulers can be run here",
        )
    scheduler = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)):
        raise ExportError(
            f"{SCHEDULER_NAME} names no scheduler of diffusers",
            got=f"_class_name = {name!r}",
            expected=f"a scheduler class of diffusers {diffusers.__version__}, such as DPMSolverMultistepScheduler",
        )
    return scheduler


def check_scheduler(config: Mapping[str, Any]) -> None:
    """Refuse a scheduler config that is neither of diffusers nor a schedule of dpmrt's own."""
    if config.get("_class_name") != OWN_SCHEDULE:
        scheduler_class(config)


def write_scheduler(config: Mapping[str, Any], folder: Path) -> None:
    """Write a scheduler's config into a folder: ours as it is, others as diffusers saves them, with all defaults."""
    check_scheduler(config)
    if config["_class_name"] != OWN_SCHEDULE:
        scheduler_class(config).from_config(dict(config)).save_pretrained(str(folder))
        return
    folder.mkdir()
    (folder / SCHEDULER_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
