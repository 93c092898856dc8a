"""PNDMScheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.described import described
from dpmrt.solvers_np.from_diffusers.numbers.schedule import read_schedule
from dpmrt.solvers_np.from_diffusers.numbers.times import PNDM_KEYS, PndmTimes
from dpmrt.solvers_np.from_diffusers.numbers.times import pndm as pndm_times
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Level, Levels
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.schedules.schedule import DiscreteVP
from dpmrt.solvers_np.solvers.pndm import Stage, pseudo

_KEYS: dict[str, Any] = {**PNDM_KEYS, "combine": "outputs"}


def plan_pndm(config: Mapping[str, Any], steps: int) -> StepPlan:
    """Return PNDM's plan. Each step aims at t - N // steps, whatever the spacing, as diffusers does.

    diffusers combines the outputs of a network that predicts v, and turns the sum into eps at one level; the key
    `combine`, which it does not have, set to "eps" combines what each call says of eps, as the paper means it.
    """
    keys = SchedulerConfig("PNDMScheduler", config, _KEYS)
    prediction = keys.choice("prediction_type", "epsilon", "v_prediction")
    schedule = read_schedule(keys)
    stride = schedule.train_steps // steps
    final = Level(math.nan, 1.0, 0.0) if keys.flag("set_alpha_to_one") else _at(schedule, 0)
    parts = _steps(
        pndm_times(keys, steps),
        stride,
        lambda t: _at(schedule, t) if t >= 0 else final,
        first_again=keys.flag("skip_prk_steps"),
    )
    grid = Grid(_columns([s[0].here for s in parts]), _columns([s[-1].there for s in parts]))
    plan = pseudo(grid, prediction, parts, combine_outputs=keys.choice("combine", "outputs", "eps") == "outputs")
    return described(plan, keys, "pndm", steps, prediction)


def _steps(times: PndmTimes, stride: int, at: Callable[[int], Level], *, first_again: bool) -> list[list[Stage]]:
    prk, plms = ([int(t) for t in column] for column in (times.prk, times.plms))
    back = (stride // 2, 0, stride // 2, 0)
    steps = [
        [Stage(at(t), at(prk[k]), at(t - back[j])) for j, t in enumerate(prk[k : k + 4])]
        for k in range(0, len(prk), 4)
    ]
    steps += [[Stage(at(t), at(t), at(t - stride))] for t in plms]
    if first_again and len(plms) > 1:
        steps[:2] = [[steps[0][0], Stage(at(plms[1]), at(plms[1] + stride), at(plms[1]))]]
    return steps


def _at(schedule: DiscreteVP, t: int) -> Level:
    bar = float(schedule.alphas_cumprod[t])
    return Level(float(t), math.sqrt(bar), math.sqrt(1 - bar))


def _columns(levels: list[Level]) -> Levels:
    return Levels.of(*zip(*levels))
