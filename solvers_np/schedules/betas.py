"""The betas of discrete schedules, u = i / (N - 1) running over the training times, and zero terminal SNR."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dpmrt.errors import OptionError
from dpmrt.solvers_np.levels import Floats

MAX_TRAIN_STEPS = 1_000_000
Knots = Sequence[tuple[float, float]]


def linear(train_steps: int, beta_start: float, beta_end: float) -> Floats:
    """Space betas evenly (Ho et al. 2020, section 4)."""
    return np.linspace(_open(beta_start, "beta_start"), _open(beta_end, "beta_end"), train_steps)


def scaled_linear(train_steps: int, beta_start: float, beta_end: float) -> Floats:
    """Space betas evenly in their square root (latent diffusion)."""
    start, end = _open(beta_start, "beta_start"), _open(beta_end, "beta_end")
    return np.asarray(np.linspace(math.sqrt(start), math.sqrt(end), train_steps) ** 2)


def quadratic(train_steps: int, beta_start: float, beta_end: float) -> Floats:
    """Let betas grow with u^2."""
    start, end = _open(beta_start, "beta_start"), _open(beta_end, "beta_end")
    return np.asarray(start + (end - start) * np.linspace(0, 1, train_steps) ** 2)


def exponential(train_steps: int, beta_start: float, beta_end: float) -> Floats:
    """Space betas evenly in their logarithm."""
    start, end = _open(beta_start, "beta_start"), _open(beta_end, "beta_end")
    return np.asarray(start * (end / start) ** np.linspace(0, 1, train_steps))


def sigmoid(train_steps: int, beta_start: float, beta_end: float) -> Floats:
    """Let betas follow the logistic function from -6 to 6 (GeoDiff)."""
    start, end = _open(beta_start, "beta_start"), _open(beta_end, "beta_end")
    return np.asarray(start + (end - start) / (1 + np.exp(6 - 12 * np.linspace(0, 1, train_steps))))


def piecewise_linear(train_steps: int, knots: Knots) -> Floats:
    """Draw lines between knots (u, beta), of which the first is at u = 0 and the last at u = 1."""
    u, beta = np.array(knots, dtype=np.float64).T
    if u[0] != 0 or u[-1] != 1 or not (np.diff(u) > 0).all():
        raise OptionError(
            "the knots do not cross the schedule", got=f"u = {u.tolist()}", expected="u rising from 0 to 1"
        )
    for index, value in enumerate(beta.tolist()):
        _open(value, f"knots[{index}]")
    return np.asarray(np.interp(np.linspace(0, 1, train_steps), u, beta))


def cosine(train_steps: int, s: float, beta_min: float, beta_max: float) -> Floats:
    """Derive betas from the squared cosine (Nichol and Dhariwal 2021, eq. 17), clipped at both ends."""
    low, high = _open(beta_min, "beta_min"), _open(beta_max, "beta_max")
    if not s >= 0:
        raise OptionError("s is negative", got=s, expected="0 or a small positive number, as 0.008")
    return np.clip(_squared_cosine(train_steps, s), low, high)


def squaredcos_cap_v2(train_steps: int, beta_max: float = 0.999) -> Floats:
    """Derive betas from the squared cosine, capped above only, as diffusers computes them."""
    return np.minimum(_squared_cosine(train_steps, 0.008), _open(beta_max, "beta_max"))


def zero_terminal_snr(alphas_cumprod: Floats) -> Floats:
    """Shift and scale sqrt(alpha bar) to end at zero, its first value kept (Lin et al. 2024, algorithm 1)."""
    root = np.sqrt(alphas_cumprod)
    return np.asarray(((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2)


def _squared_cosine(train_steps: int, s: float) -> Floats:
    u = np.arange(train_steps + 1) / train_steps
    alpha_bar = np.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    return np.asarray(1.0 - alpha_bar[1:] / alpha_bar[:-1])


def _open(beta: float, option: str) -> float:
    if not 0 < beta < 1:
        raise OptionError("a beta is outside (0, 1)", got=f"{option} = {beta}", expected="0 < beta < 1")
    return beta
