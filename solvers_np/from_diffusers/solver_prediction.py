"""What the network of DPM-Solver's family predicts: DPM-Solver itself, UniPC, DEIS and SA-Solver."""

from __future__ import annotations

from typing import Any

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.optional import raised

PREDICTION_KEYS: dict[str, Any] = {
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
#: the fixed ones, which take nothing from the network, may stand in a config that was DDPMScheduler's before
_VARIANCES = (
    None,
    "learned",
    "learned_range",
    "fixed_small",
    "fixed_small_log",
    "fixed_large",
    "fixed_large_log",
)


def solver_prediction(keys: SchedulerConfig, *, flow: bool = True) -> str:
    """Return what the network predicts, in our words; without `flow` this form of the solver takes no flow."""
    prediction = str(keys.choice("prediction_type", "epsilon", "sample", "v_prediction", "flow_prediction"))
    flowing = raised(keys, "use_flow_sigmas")
    if prediction == "flow_prediction" and not flow:
        raise OptionError(
            f"{keys.name}: in diffusers flow_prediction is for solvers that integrate x0",
            got="prediction_type = 'flow_prediction'",
            expected="'epsilon', 'sample' or 'v_prediction'",
        )
    if prediction == "flow_prediction" and not flowing:
        raise OptionError(
            f"{keys.name}: flow_prediction needs the sigmas of a flow",
            got="prediction_type = 'flow_prediction', use_flow_sigmas = False",
            expected="use_flow_sigmas = true",
        )
    if prediction == "v_prediction" and flowing:
        raise OptionError(
            f"{keys.name}: v of a state whose variance is not one; diffusers leaves its norm out",
            got="prediction_type = 'v_prediction', use_flow_sigmas = true",
            expected="'flow_prediction', 'epsilon' or 'sample'",
        )
    return "flow" if prediction == "flow_prediction" else prediction


def read_parts(keys: SchedulerConfig, prediction: str) -> int:
    """Return how many times the state's channels the network's output has; only the first part is used."""
    learned = keys.choice("variance_type", *_VARIANCES) in ("learned", "learned_range")
    return 2 if learned and prediction == "epsilon" else 1
