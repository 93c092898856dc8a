"""Grids of DPM-Solver's family and of flow matching: diffusers' sigmas, in a state whose weights both change."""

from __future__ import annotations

import numpy as np

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers.sigmas import Sigmas
from dpmrt.solvers_np.from_diffusers.optional import raised
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Floats, Levels

#: a shift may put the highest share of noise this far above one
_ROUNDING = 1e-12


def solver_grid(keys: SchedulerConfig, found: Sigmas) -> Grid:
    """Return the grid of sigmas that are ratios of noise to signal, or, with `use_flow_sigmas`, shares of noise."""
    sigmas = found.sigmas[: len(found.timesteps) + 1]
    if raised(keys, "use_flow_sigmas"):
        return flow_grid(sigmas, found.timesteps)
    return Grid.at_ratios(sigmas[:-1], found.timesteps, float(sigmas[-1]))


def flow_grid(shares: Floats, times: Floats) -> Grid:
    """Make intervals between shares of noise. Pipelines start from unit noise, whatever the first of them is.

    >>> flow_grid(np.array([1.0, 0.5, 0.0]), np.array([1000.0, 500.0])).start.alpha.tolist()
    [0.0, 0.5]
    """
    sigmas, alphas = (np.where(np.abs(v) < _ROUNDING, 0.0, v) for v in (shares, 1 - shares))
    end = Levels.of(np.append(times[1:], np.nan), alphas[1:], sigmas[1:])
    return Grid(Levels.of(times, alphas[:-1], sigmas[:-1]), end, init_scale=1.0)
