"""What the network predicts, by its scheduler's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import class_name
from dpmrt.solvers_np.options import choose
from dpmrt.solvers_np.prediction import PREDICTIONS

#: EDM's schedulers call epsilon what comes through EDM's preconditioning
EDM_PREDICTIONS = {"epsilon": "edm", "v_prediction": "v_prediction"}
# Flow schedulers do not say.
_OF_CLASS = {
    "EDMEulerScheduler": EDM_PREDICTIONS,
    "EDMDPMSolverMultistepScheduler": EDM_PREDICTIONS,
    "FlowMatchEulerDiscreteScheduler": {"epsilon": "flow"},
    "FlowMatchHeunDiscreteScheduler": {"epsilon": "flow"},
    "ScoreSdeVeScheduler": {"epsilon": "score"},
}
_NAMES = {**{name: name for name in PREDICTIONS}, "flow_prediction": "flow"}


def prediction_from_diffusers(scheduler_config: Mapping[str, Any]) -> str:
    """Return the prediction, one of PREDICTIONS, of a network that is sampled by this scheduler.

    >>> prediction_from_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler"})
    'flow'
    """
    given = scheduler_config.get("prediction_type", "epsilon")
    if not isinstance(given, str):
        raise OptionError("prediction_type is no word", got=repr(given), expected="one of " + ", ".join(_NAMES))
    own = _OF_CLASS.get(class_name(scheduler_config), {})
    return own[given] if given in own else choose("prediction_type", given, _NAMES)
