"""The named noise schedules. Each is a function of its parameters; SCHEDULES lists them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from dpmrt.solvers_np.options import call_with_options, choose, whole
from dpmrt.solvers_np.schedule import Floats, NoiseSchedule

MAX_TRAIN_STEPS = 1_000_000


def linear(train_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Floats:
    """Betas evenly spaced (Ho et al. 2020, section 4)."""
    return np.linspace(beta_start, beta_end, train_steps)


def scaled_linear(train_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Floats:
    """Betas evenly spaced in their square root (latent diffusion)."""
    return np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), train_steps) ** 2


def cosine(train_steps: int = 1000, s: float = 0.008, beta_min: float = 1e-4, beta_max: float = 0.9999) -> Floats:
    """Betas from the squared cosine (Nichol and Dhariwal 2021, eq. 17), clipped at both ends."""
    return np.clip(_cosine_betas(train_steps, s), beta_min, beta_max)


def squaredcos_cap_v2(train_steps: int = 1000, beta_max: float = 0.999) -> Floats:
    """Betas from the squared cosine, capped above only, as diffusers computes them."""
    return np.minimum(_cosine_betas(train_steps, 0.008), beta_max)


def _cosine_betas(train_steps: int, s: float) -> Floats:
    u = np.arange(train_steps + 1) / train_steps
    alpha_bar = np.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return np.asarray(1.0 - alpha_bar[1:] / alpha_bar[:-1])


SCHEDULES: Mapping[str, Callable[..., Floats]] = MappingProxyType(
    {
        "linear": linear,
        "scaled_linear": scaled_linear,
        "cosine": cosine,
        "squaredcos_cap_v2": squaredcos_cap_v2,
    }
)


def make_schedule(name: str, **params: Any) -> NoiseSchedule:
    """Make a noise schedule by name.

    >>> schedule = make_schedule("linear", train_steps=1000)
    >>> round(float(schedule.lambda_(0)), 3)
    4.605
    """
    factory = choose("schedule", name, SCHEDULES)
    steps = params.get("train_steps", 1000)
    whole("train_steps", steps, 2, MAX_TRAIN_STEPS)
    return NoiseSchedule.from_betas(call_with_options(f"schedule {name!r}", factory, params), name=name)
