"""What a scheduler_config.json says, as diffusers understands it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import diffusers

from dpmrt.errors import ExportError

SCHEDULER_NAME = "scheduler_config.json"

Prediction = Literal["epsilon", "sample", "v_prediction"]
_PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "sample", "v_prediction")


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


def prediction_of(config: Mapping[str, Any]) -> Prediction:
    """Return what the network predicts: the config's word, or else the default of its class."""
    parameter = inspect.signature(scheduler_class(config)).parameters.get("prediction_type")
    found = config.get("prediction_type", parameter.default if parameter else None)
    for prediction in _PREDICTIONS:
        if prediction == found:
            return prediction
    raise ExportError(
        "the network's prediction is not one that dpmrt samples from",
        got=f"prediction_type = {found!r} of {config['_class_name']}",
        expected=", ".join(_PREDICTIONS),
    )
