"""The `timesteps` that diffusers takes in set_timesteps, read as a key of the config."""

from __future__ import annotations

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.optional import row_or_none
from dpmrt.solvers_np.schedules.schedule import Floats


def given_times(config: SchedulerConfig, steps: int) -> Floats | None:
    """Return the whole training times that the config lists, last first, or None where it lists none."""
    times = row_or_none(config, "timesteps", steps)
    if times is None:
        return None
    last = config.whole("num_train_timesteps", 2) - 1
    if not (times == np.round(times)).all() or times[-1] < 0 or times[0] > last:
        raise OptionError(
            f"{config.name}: timesteps must be whole training times",
            got=repr(config["timesteps"]),
            expected=f"whole numbers from 0 to {last}",
        )
    return times
