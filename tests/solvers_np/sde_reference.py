"""Score SDEs in torch, written from Song et al. 2021 (arXiv 2011.13456) alone, with recorded noise.

The forward SDE is dx = -beta(t) / 2 x dt + g(t) dw. Its chain between two times, x_t = r x_s + sqrt(g2) z, is had by
integrating r' = -beta / 2 r and the variance of the noise numerically; dpmrt has it from closed forms.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

Tensor = torch.Tensor
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of trained network: its SDE, its N times from the noisiest down, its labels and what it answers.

    `chain` and `std` are those between times i and i + 1, counted from the noisiest; of the last, onto no noise.
    """

    label: Callable[[int], float]
    std: Callable[[int], float]
    chain: Callable[[int], tuple[float, float]]
    rates: Callable[[int], tuple[float, float, float]]
    steps: int
    answers_score: bool
    ancestral: str

    def score(self, network: Callable[[Tensor, float], Tensor], x: Tensor, i: int) -> Tensor:
        out = network(x, self.label(i))
        return out if self.answers_score else -out / self.std(i)


def integral(function: Callable[[np.ndarray], np.ndarray], low: float, high: float) -> float:
    at = (high - low) / 2 * _NODES + (high + low) / 2
    return float((high - low) / 2 * (_WEIGHTS * function(at)).sum())


def continuous(kind: str, times: list[float]) -> Family:
    """VP and sub-VP with beta from 0.1 to 20, VE with sigma from 0.01 to 50; labels are those of score_sde."""

    def beta(t: np.ndarray | float) -> np.ndarray | float:
        return 0.1 + 19.9 * t if kind != "ve" else 0.0 * t

    def diffusion(t: np.ndarray | float) -> np.ndarray | float:
        if kind == "ve":
            return (0.01 * 5000.0**t) ** 2 * 2 * math.log(5000.0)
        return beta(t) * (1.0 if kind == "vp" else 1 - np.exp(-2 * (0.1 * t + 19.9 / 2 * t**2)))

    def marginal(t: float) -> tuple[float, float]:
        if kind == "ve":
            return 1.0, 0.01 * 5000.0**t
        alpha = math.exp(-integral(beta, 0.0, t) / 2)
        return alpha, math.sqrt(1 - alpha**2) if kind == "vp" else 1 - alpha**2

    def chain(i: int) -> tuple[float, float]:
        if i == len(times) - 1:
            alpha, sigma = marginal(times[i])
            return alpha, sigma**2
        high, low = times[i], times[i + 1]
        noise = integral(
            lambda u: diffusion(u) * np.array([math.exp(-integral(beta, v, high)) for v in u]), low, high
        )
        return math.exp(-integral(beta, low, high) / 2), noise

    def rates(i: int) -> tuple[float, float, float]:
        return -float(beta(times[i])) / 2, float(diffusion(times[i])), times[i] - times[min(i + 1, len(times) - 1)]

    return Family(
        label=lambda i: marginal(times[i])[1] if kind == "ve" else 999 * times[i],
        std=lambda i: marginal(times[i])[1],
        chain=chain,
        rates=rates,
        steps=len(times),
        answers_score=kind == "ve",
        ancestral={"vp": "ddpm"}.get(kind, "posterior"),
    )


def smld(steps: int) -> Family:
    """N geometric levels, the network told their number, 0 for the noisiest."""
    sigmas = np.exp(np.linspace(math.log(50.0), math.log(0.01), steps))
    after = np.append(sigmas[1:], 0.0)
    return Family(
        label=lambda i: float(i),
        std=lambda i: float(sigmas[i]),
        chain=lambda i: (1.0, float(sigmas[i] ** 2 - after[i] ** 2)),
        rates=lambda i: (0.0, float(2 * math.log(5000.0) * sigmas[i] ** 2), 1 / (steps - 1)),
        steps=steps,
        answers_score=True,
        ancestral="posterior",
    )


def ddpm(betas: np.ndarray) -> Family:
    """DDPM's betas, the network told their number."""
    steps, bars = len(betas), np.cumprod(1 - betas)
    return Family(
        label=lambda i: float(steps - 1 - i),
        std=lambda i: math.sqrt(1 - bars[steps - 1 - i]),
        chain=lambda i: (math.sqrt(1 - betas[steps - 1 - i]), float(betas[steps - 1 - i])),
        rates=lambda i: (-float(betas[steps - 1 - i]) / 2, float(betas[steps - 1 - i]), 1.0),
        steps=steps,
        answers_score=False,
        ancestral="ddpm",
    )


def predicted(family: Family, predictor: str, flow: bool, x: Tensor, score: Tensor, i: int) -> tuple[Tensor, float]:
    """Return the mean of the next state and the noise that is added to it."""
    r, g2 = family.chain(i)
    last = i == family.steps - 1
    if predictor == "euler-maruyama" and not last:
        drift, diffusion, dt = family.rates(i)
        reverse = drift * x - diffusion * score * (0.5 if flow else 1.0)
        return x - reverse * dt, 0.0 if flow else math.sqrt(diffusion * dt)
    if predictor == "ancestral":
        kept = 0.0 if last else family.std(i + 1) / family.std(i)
        return (x + g2 * score) / r, math.sqrt(g2) * (1.0 if family.ancestral == "ddpm" else kept)
    f = (r - 1) * x
    half = 0.5 if flow and not last else 1.0
    return x - f + half * g2 * score, 0.0 if flow else math.sqrt(g2)


def corrected(
    family: Family, corrector: str, snr: float, per_sample: bool, x: Tensor, score: Tensor, z: Tensor, i: int
) -> Tensor:
    alpha = family.chain(i)[0] ** 2
    if corrector == "langevin":
        grad, noise = (torch.norm(a.reshape(len(a), -1), dim=-1) for a in (score, z))
        if not per_sample:
            grad, noise = grad.mean(), noise.mean()
        step = (snr * noise / grad) ** 2 * 2 * alpha
        step = step.reshape(-1, *[1] * (x.dim() - 1))
    else:
        step = torch.as_tensor((snr * family.std(i)) ** 2 * 2 * alpha, dtype=x.dtype)
    return x + step * score + torch.sqrt(2 * step) * z


def sampled(
    family: Family,
    network: Callable[[Tensor, float], Tensor],
    x: Tensor,
    noise: Iterator[Tensor],
    *,
    predictor: str,
    corrector: str,
    snr: float = 0.16,
    corrector_steps: int = 1,
    denoise: bool = True,
    probability_flow: bool = False,
    per_sample: bool = False,
) -> Tensor:
    for i in range(family.steps):
        for _ in range(0 if corrector == "none" else corrector_steps):
            score = family.score(network, x, i)
            x = corrected(family, corrector, snr, per_sample, x, score, next(noise), i)
        if predictor != "none":
            x, std = predicted(family, predictor, probability_flow, x, family.score(network, x, i), i)
            if std and not (denoise and i == family.steps - 1):
                x = x + std * next(noise)
    return x
