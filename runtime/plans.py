"""The plan that a bundle's request is sampled with: compiled by name or by the scheduler's config, or checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.calibration.statistic import fill_statistic
from dpmrt.runtime.network_checks import check_times
from dpmrt.runtime.request import check_schedule
from dpmrt.solvers_np import StepPlan, compile_plan, plan_from_diffusers, schedule_from_diffusers

#: what compile_plan takes beside the options of a solver and its grid, and what `make_plan` settles itself
_SETTLED = frozenset({"solver", "schedule", "steps"})
_COMPILE = "compile it with Pipeline.plan(...) / --save-plan for this bundle, with its schedule and prediction"


def make_plan(bundle: OpenBundle, steps: int | None, solver: str | None, options: Mapping[str, Any]) -> StepPlan:
    """Compile the plan for a request; without a solver the manifest's, or else what the scheduler config says."""
    defaults = bundle.manifest.defaults
    steps = defaults.steps if steps is None else steps
    if solver is None:
        solver, options = defaults.solver, {**defaults.options, **options}
    if solver is None:
        return plan_from_diffusers({**bundle.scheduler_config, **options}, steps)
    if taken := sorted(_SETTLED.intersection(options)):
        raise OptionError(
            f"solver {solver!r} has no option of this name",
            got=", ".join(taken),
            expected="options of the solver or of its grid",
            fix="leave it out: the schedule is the one the network was trained with",
        )
    schedule = schedule_from_diffusers(bundle.scheduler_config)
    options = fill_statistic(bundle, schedule, solver, options)
    return compile_plan(solver, schedule, steps, **{"prediction": bundle.manifest.prediction, **options})


def settle_plan(
    bundle: OpenBundle, plan: object, steps: int | None, solver: str | None, options: Mapping[str, Any]
) -> StepPlan:
    """Return the plan that was given, which then leaves nothing to choose, or make one; it suits the network."""
    if plan is None:
        plan = make_plan(bundle, steps, solver, options)
    elif not isinstance(plan, StepPlan):
        raise OptionError(
            "plan is no plan",
            got=repr(plan),
            expected="a StepPlan",
            fix="compile one with Pipeline.plan(...), or read one with StepPlan.load(path)",
        )
    elif steps is not None or solver is not None or options:
        named = [*(["steps"] if steps is not None else []), *(["solver"] if solver is not None else []), *options]
        raise OptionError(
            "a plan leaves nothing to choose about the solver",
            got="plan and " + ", ".join(named),
            expected="a plan alone",
            fix="leave out the plan, or compile another with Pipeline.plan(...)",
        )
    trained = bundle.manifest.prediction
    made_for = plan.meta.get("prediction", trained)
    if made_for != trained:
        raise OptionError(
            "the plan is for a network that predicts something else", got=made_for, expected=trained, fix=_COMPILE
        )
    if bundle.schedule is not None:
        check_schedule(plan, bundle.schedule, fix=_COMPILE)
    check_times(bundle.manifest.unet, plan)
    return plan
