"""Grids of the classes that follow k-diffusion: diffusers' sigmas, in a state that holds the data with weight one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers.sigma_ladders import times_of
from dpmrt.solvers_np.from_diffusers.numbers.sigmas import MidSigmas, Sigmas, StagedSigmas
from dpmrt.solvers_np.from_diffusers.optional import positive
from dpmrt.solvers_np.grids.grid import Grid
from dpmrt.solvers_np.levels import Floats, Level, Levels


def k_grid(found: Sigmas, between: Callable[[float], Level] | None = None) -> Grid:
    """Return a grid of sigmas, from each time to the sigma after it.

    >>> k_grid(Sigmas(np.array([3.0, 1.0, 0.0]), np.array([9.0, 4.0]), 3.0)).t.tolist()
    [9.0, 4.0]
    """
    sigmas, times = found.sigmas[: len(found.timesteps) + 1], found.timesteps
    if isinstance(found, StagedSigmas):
        sigmas, times = found.levels, found.times
    return Grid.at_ratios(
        sigmas[:-1],
        times,
        float(sigmas[-1]),
        exploding=True,
        between=between,
        init_scale=found.init_noise_sigma,
    )


def staged_grid(found: MidSigmas) -> Grid:
    """Return the grid of a scheduler that calls the network between its sigmas, at sigmas and times that it keeps."""
    inner = list(Levels.of(found.mid_times, 1.0, found.mid, 1 / np.hypot(1, found.mid)))
    logs = np.log(found.mid)

    def between(lambda_: float) -> Level:
        """Return the level kept whose lambda is the one asked for, but for rounding."""
        return inner[int(np.abs(logs + lambda_).argmin())]

    return k_grid(found, between)


def looked_up(ratios: Floats) -> Callable[[float], Level]:
    """Return the level at any lambda, its time read off the table as diffusers reads it."""

    def between(lambda_: float) -> Level:
        sigma = math.exp(-lambda_)
        return Level(float(times_of(np.array([sigma]), ratios)[0]), 1.0, sigma, 1 / math.hypot(1, sigma))

    return between


def edm_grid(keys: SchedulerConfig, found: Sigmas) -> Grid:
    """Return the grid of EDM's two classes, whose input is scaled by the spread of the data."""
    sigma_data = positive(keys, "sigma_data")

    def between(lambda_: float) -> Level:
        return Level(-lambda_ / 4, 1.0, math.exp(-lambda_), 1 / math.hypot(math.exp(-lambda_), sigma_data))

    times, in_scale = np.append(found.timesteps, np.nan), 1 / np.hypot(found.sigmas, sigma_data)
    start = Levels.of(times[:-1], 1.0, found.sigmas[:-1], in_scale[:-1])
    end = Levels.of(times[1:], 1.0, found.sigmas[1:], in_scale[1:])
    return Grid(start, end, between, found.init_noise_sigma)
