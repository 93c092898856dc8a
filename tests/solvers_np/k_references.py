"""k-diffusion's and EDM's samplers, written out step by step over sigma.

They know nothing of plans: they step a state x_bar = x / alpha from one noise-to-signal ratio to the next, asking a
denoiser D(x_bar, sigma), as Karras et al. 2022 and k-diffusion have it where alpha is 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import integrate

from dpmrt.solvers_np import NoiseSchedule

Array = np.ndarray
Denoiser = Callable[[Array, float], Array]


def network(x: Array, t: Array) -> Array:
    return np.tanh(0.7 * x + 0.1) * (0.8 + 0.1 * np.sin(t[0]))


def denoiser(schedule: NoiseSchedule, prediction: str) -> Denoiser:
    """Return D(x_bar, sigma) of the network above, with each prediction read as its paper defines it."""

    def denoise(x_bar: Array, sigma: float) -> Array:
        t, alpha, noise, scale = schedule.level(-math.log(sigma))
        raw = network(scale * alpha * x_bar, np.full(len(x_bar), t))
        if prediction == "epsilon":
            return x_bar - sigma * raw
        if prediction == "v_prediction":
            return alpha * (alpha * x_bar) - noise * raw
        if prediction == "edm":
            total = sigma**2 + 0.25
            return 0.25 / total * x_bar + sigma * 0.5 / math.sqrt(total) * raw
        return raw

    return denoise


def churned(x: Array, sigma: float, noise: Iterator[Array], n: int, churn: dict) -> tuple[Array, float]:
    low, high = churn.get("s_tmin", 0.0), churn.get("s_tmax", math.inf)
    gamma = min(churn.get("s_churn", 0.0) / n, math.sqrt(2) - 1) if low <= sigma <= high else 0.0
    if not gamma:
        return x, sigma
    hat = sigma * (1 + gamma)
    return x + math.sqrt(hat**2 - sigma**2) * churn.get("s_noise", 1.0) * next(noise), hat


def euler(denoise: Denoiser, x: Array, sigmas: Array, noise: Iterator[Array], **churn: float) -> Array:
    for sigma, after in itertools.pairwise(sigmas):
        x, hat = churned(x, sigma, noise, len(sigmas) - 1, churn)
        x = x + (after - hat) * (x - denoise(x, hat)) / hat
    return x


def heun(denoise: Denoiser, x: Array, sigmas: Array, noise: Iterator[Array], **churn: float) -> Array:
    for sigma, after in itertools.pairwise(sigmas):
        x, hat = churned(x, sigma, noise, len(sigmas) - 1, churn)
        d = (x - denoise(x, hat)) / hat
        ahead = x + (after - hat) * d
        if after > 0:
            ahead = x + (after - hat) * (d / 2 + (ahead - denoise(ahead, after)) / after / 2)
        x = ahead
    return x


def kdpm2(denoise: Denoiser, x: Array, sigmas: Array, noise: Iterator[Array], **churn: float) -> Array:
    for sigma, after in itertools.pairwise(sigmas):
        x, hat = churned(x, sigma, noise, len(sigmas) - 1, churn)
        d = (x - denoise(x, hat)) / hat
        if after > 0:
            mid = math.sqrt(hat * after)
            half = x + (mid - hat) * d
            d = (half - denoise(half, mid)) / mid
        x = x + (after - hat) * d
    return x


def lms(denoise: Denoiser, x: Array, sigmas: Array, noise: Iterator[Array], order: int = 4) -> Array:
    found: list[Array] = []
    for i in range(len(sigmas) - 1):
        found.append((x - denoise(x, sigmas[i])) / sigmas[i])
        known = range(max(0, i - order + 1), i + 1)
        for j in known:
            others = [k for k in known if k != j]

            def basis(s: float, j: int = j, others: list[int] = others) -> float:
                return math.prod((s - sigmas[k]) / (sigmas[j] - sigmas[k]) for k in others)

            x = x + integrate.quad(basis, sigmas[i], sigmas[i + 1])[0] * found[j]
    return x


def down_and_up(sigma: float, after: float, eta: float) -> tuple[float, float]:
    up = min(after, eta * math.sqrt(after**2 * (sigma**2 - after**2) / sigma**2))
    return math.sqrt(after**2 - up**2), up


def ancestral(kind: str) -> Callable[..., Array]:
    """Return a reference that steps down below the next sigma, and adds the noise that leads up to it."""

    def sample(
        denoise: Denoiser, x: Array, sigmas: Array, noise: Iterator[Array], eta: float = 1.0, s_noise: float = 1.0
    ) -> Array:
        for sigma, after in itertools.pairwise(sigmas):
            down, up = down_and_up(sigma, after, eta)
            x0 = denoise(x, sigma)
            if kind == "2s" and down:
                mid = math.sqrt(sigma * down)
                half = mid / sigma * x + (1 - mid / sigma) * x0
                x0 = denoise(half, mid)
                x = down / sigma * x + (1 - down / sigma) * x0
            elif kind == "kdpm2" and down:
                mid = math.sqrt(sigma * down)
                half = x + (mid - sigma) * (x - x0) / sigma
                x = x + (down - sigma) * (half - denoise(half, mid)) / mid
            elif kind == "heun" and down:
                d, low = (x - x0) / sigma, max(down, sigmas[-2])
                there = x + (low - sigma) * d
                bend = ((there - denoise(there, low)) / low - d) / (low - sigma)
                x = x + (down - sigma) * d + (down - sigma) ** 2 / 2 * bend
            else:
                x = x + (down - sigma) * (x - x0) / sigma
            if up:
                x = x + up * s_noise * next(noise)
        return x

    return sample


def dpmpp_sde(
    denoise: Denoiser,
    x: Array,
    sigmas: Array,
    noise: Iterator[Array],
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Array:
    def moved(x: Array, x0: Array, sigma: float, after: float) -> Array:
        down, up = down_and_up(sigma, after, eta)
        x = down / sigma * x + (1 - down / sigma) * x0
        return x + up * s_noise * next(noise) if up else x

    for sigma, after in itertools.pairwise(sigmas):
        x0 = denoise(x, sigma)
        if after:
            stage = sigma ** (1 - r) * after**r
            ahead = moved(x, x0, sigma, stage)
            x0 = (1 - 1 / (2 * r)) * x0 + 1 / (2 * r) * denoise(ahead, stage)
        x = moved(x, x0, sigma, after)
    return x


REFERENCES: dict[str, Callable[..., Array]] = {
    "euler": euler,
    "heun": heun,
    "kdpm2": kdpm2,
    "lms": lms,
    "euler-ancestral": ancestral("euler"),
    "heun-ancestral": ancestral("heun"),
    "kdpm2-ancestral": ancestral("kdpm2"),
    "dpmsolver++2s-ancestral": ancestral("2s"),
    "dpmsolver++sde": dpmpp_sde,
}
