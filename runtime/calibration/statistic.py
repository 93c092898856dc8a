"""From the statistic of a bundle to the options of a solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.engines import EpsPower, read_eps_power
from dpmrt.errors import BundleError
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.solvers_np import SOLVERS, NoiseSchedule, sampler_called
from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.options import accepted

#: how many times stand for those of a schedule in continuous time
_FINE = 1001


def fill_statistic(
    bundle: OpenBundle, schedule: NoiseSchedule, solver: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options with what the bundle knows for an analytic variance, where one is asked for without gamma.

    Raises BundleError where the bundle knows nothing.
    """
    given = dict(options)
    if given.get("variance") != "analytic" or "gamma" in given or not _takes_gamma(solver):
        return given
    statistic = read_eps_power(bundle.root, bundle.manifest)
    if statistic is None:
        raise BundleError(
            "the analytic variance needs a statistic of the network, and the bundle holds none",
            got=f"no `eps_power` in the manifest of {bundle.root}",
            expected="the mean of eps(x_t, t)^2 over the training data",
            fix=f"dpmrt calibrate {bundle.root} --data DATA, or another variance",
        )
    low, high = bundle.manifest.data_range
    radius = given.get("radius", (high - low) / 2)
    times, gamma = at_all_times(statistic, schedule, radius)
    return {**given, "radius": radius, "gamma": gamma, "gamma_times": times}


def at_all_times(statistic: EpsPower, schedule: NoiseSchedule, radius: float | None = None) -> tuple[Floats, Floats]:
    """Return the statistic at every training time, from what it is at those where it was measured.

    Between them the variance of x0 that it stands for, at most radius^2, is on a line: it changes less than the
    statistic does.
    """
    times, power = np.asarray(statistic.times), np.asarray(statistic.power)
    steps = schedule.train_steps
    wanted = np.arange(steps, dtype=np.float64) if steps else np.linspace(times[0], times[-1], _FINE)
    known = np.isin(wanted, times)
    if known.all():
        return wanted, power[np.isin(times, wanted)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, there = (schedule.sigma(t) / schedule.alpha(t) for t in (times, wanted))
        of_x0 = np.clip(ratio**2 * (1.0 - power), 0.0, None if radius is None else radius**2)
        usable = np.isfinite(of_x0)
        gamma = np.maximum(1.0 - np.interp(wanted, times[usable], of_x0[usable]) / there**2, 0.0)
    gamma[known] = power[np.isin(times, wanted)]
    return wanted, np.asarray(gamma)


def describe_statistic(bundle: OpenBundle) -> str:
    """Return what `dpmrt inspect` says of the statistic, in a line."""
    try:
        found = read_eps_power(bundle.root, bundle.manifest)
    except BundleError as error:
        return f"unknown: {error.what}"
    if found is None:
        return "not measured; `dpmrt calibrate` does it"
    return f"measured at {len(found.times)} times over {found.samples} samples, error at most {max(found.error):.2g}"


def _takes_gamma(solver: str) -> bool:
    known = None if solver in SOLVERS else sampler_called(solver)
    found = SOLVERS.get(solver if known is None else known.solver)
    return found is not None and {"variance", "gamma"} <= set(accepted(found.make))
