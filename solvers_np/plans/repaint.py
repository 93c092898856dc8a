"""RePaint's course, Lugmayr et al. 2022: a plan that jumps back, by adding noise, and takes the same steps again.

What is known is put into the state by a hook (runtime/editing/known.py); the plan alone decides when.
"""

from __future__ import annotations

from dpmrt.errors import OptionError
from dpmrt.solvers_np.options import whole
from dpmrt.solvers_np.plans.parts import cut, joined, one_step_entries, raised, state_levels
from dpmrt.solvers_np.plans.plan import StepPlan
from dpmrt.solvers_np.prediction import Pair


def repaint(plan: StepPlan, jump_length: int, resamples: int, *, calls: int = 1) -> StepPlan:
    """Return the plan with jumps: every `jump_length` steps are taken `resamples` times (the paper's j and r).

    After each `jump_length` steps, counted so that the last step of all stands alone, noise leads the state back up
    and the steps are taken again. The steps are those of the plan, whose solver makes at most `calls` calls a step
    and keeps nothing else. One jump stands for the paper's j draws of noise, which add up to the same law.

    >>> from dpmrt.solvers_np import compile_plan
    >>> plan = repaint(compile_plan("ddpm", "linear", 4), jump_length=1, resamples=2)
    >>> plan.timesteps.tolist()
    [999.0, 999.0, 749.0, 749.0, 499.0, 499.0, 249.0]
    """
    rows = one_step_entries(plan, calls, "RePaint")
    steps = len(rows)
    jump_length = whole("repaint's jump length", jump_length, 1)
    resamples = whole("repaint's resamples", resamples, 1)
    if jump_length >= steps:
        raise OptionError(
            "repaint's jump is as long as the run",
            got=f"a jump of {jump_length} over {steps} steps",
            expected=f"1 to {steps - 1}" if steps > 1 else "at least 2 steps",
            fix="ask for more steps, or a shorter jump",
        )
    found = state_levels(plan)
    levels = [_known(found[row], row) for row in [*rows, plan.rows]]
    ends = [*rows[1:], plan.rows]
    again = {left: resamples - 1 for left in range(1, steps - jump_length + 1, jump_length)}
    parts, step = list[StepPlan](), 0
    while step < steps:
        parts.append(cut(plan, rows[step], ends[step]))
        step += 1
        if again.get(steps - step, 0) > 0:
            again[steps - step] -= 1
            parts.append(raised(plan, levels[step], levels[step - jump_length]))
            step -= jump_length
    return joined(parts, repaint=[jump_length, resamples])


def _known(level: Pair | None, row: int) -> Pair:
    if level is None or not level[0]:
        raise OptionError(
            "RePaint cannot jump over this plan",
            got=f"row {row}, where no signal is left" if level else f"row {row}, whose level is not known",
            expected="steps between levels that hold some signal",
            fix="choose another schedule or grid",
        )
    return level
