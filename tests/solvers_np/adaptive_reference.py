"""DPM-Solver-12 and -23 in torch and float64, as paper and authors' code have them, and in k-diffusion's form.

Nothing here knows of levels, terms or plans. The network is the exact one of a Gaussian mixture under a linear VP
schedule, both written out from their definitions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch

Tensor = torch.Tensor
BETA_MIN, BETA_MAX = 0.1, 20.0


def log_alpha(t: float) -> float:
    return -0.25 * t**2 * (BETA_MAX - BETA_MIN) - 0.5 * t * BETA_MIN


def alpha(t: float) -> float:
    return math.exp(log_alpha(t))


def sigma(t: float) -> float:
    return math.sqrt(-math.expm1(2 * log_alpha(t)))


def lam(t: float) -> float:
    return log_alpha(t) - math.log(sigma(t))


def time_of(lambda_: float) -> float:
    """Return t where lambda is reached (the authors' formula for the linear schedule)."""
    grown = 2 * (BETA_MAX - BETA_MIN) * (max(-2 * lambda_, 0.0) + math.log1p(math.exp(-abs(2 * lambda_))))
    return grown / (math.sqrt(BETA_MIN**2 + grown) + BETA_MIN) / (BETA_MAX - BETA_MIN)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Entries drawn on their own from sum_k weight_k N(mean_k, spread_k^2)."""

    weight: Tensor
    mean: Tensor
    spread: Tensor

    def eps(self, x: Tensor, t: float) -> Tensor:
        variance = (alpha(t) * self.spread) ** 2 + sigma(t) ** 2
        off = x[..., None] - alpha(t) * self.mean
        share = torch.softmax(torch.log(self.weight) - 0.5 * torch.log(variance) - off**2 / (2 * variance), -1)
        return sigma(t) * (share * off / variance).sum(-1)

    def x0(self, x: Tensor, t: float) -> Tensor:
        return (x - sigma(t) * self.eps(x, t)) / alpha(t)


@dataclasses.dataclass
class Found:
    """What a reference run gives: the end, its steps as (t, h, error, accepted), and the calls it makes."""

    x: Tensor
    steps: list[tuple[float, float, float, bool]]
    calls: int


Pair = Callable[[Tensor, float, float], tuple[Tensor, Tensor]]


def pair(data: Mixture, order: int, buffers: str, kind: str) -> Pair:
    """Return f(x, s, t), which gives the lower and the higher order's states at t."""

    def step(x: Tensor, s: float, t: float) -> tuple[Tensor, Tensor]:
        h = lam(t) - lam(s)
        r1, r2 = (0.5, math.nan) if order == 2 else (1 / 3, 2 / 3)
        ask = data.eps if buffers == "eps" else data.x0

        def base(part: float) -> tuple[float, Tensor, float]:
            """Return where a part of the step leads, the state there with m_s alone, and the weight of the slope."""
            there = time_of(lam(s) + part * h)
            if buffers == "eps":
                rate = math.expm1(part * h)
                return there, alpha(there) / alpha(s) * x - sigma(there) * rate * m_s, -sigma(there)
            return there, sigma(there) / sigma(s) * x - alpha(there) * math.expm1(-part * h) * m_s, alpha(there)

        def slope(part: float) -> float:
            sign = 1 if buffers == "eps" else -1
            return math.expm1(sign * part * h) / (part * h) - sign

        def second(d1: Tensor) -> Tensor:
            _, x_t, weight = base(1.0)
            half = math.expm1(h) if buffers == "eps" else -math.expm1(-h)
            factor = half / (2 * r1) if kind == "midpoint" else slope(1.0) / r1
            return x_t + weight * factor * d1

        m_s = ask(x, s)
        t1, u1, _ = base(r1)
        d1 = ask(u1, t1) - m_s
        if order == 2:
            return base(1.0)[1], second(d1)
        t2, u2, weight = base(r2)
        d2 = ask(u2 + weight * r2 / r1 * slope(r2) * d1, t2) - m_s
        _, x_t, weight = base(1.0)
        if kind == "midpoint":
            return second(d1), x_t + weight * slope(1.0) / r2 * d2
        sign = 1 if buffers == "eps" else -1
        first, bend = (r2 * d1 / r1 - r1 * d2 / r2) / (r2 - r1), 2 * (d2 / r2 - d1 / r1) / (r2 - r1)
        bent = sign * (slope(1.0) / h - 0.5)
        return second(d1), x_t + weight * (slope(1.0) * first + bent * bend)

    return step


def authors(
    x: Tensor, start: float, end: float, pair: Pair, order: int, atol: float, rtol: float, h: float, theta: float
) -> Found:
    """Step as the authors' adaptive solver does: h <- min(theta h E^(-1/order), what is left)."""
    s, previous, steps, calls = start, x, [], 0
    while abs(s - end) > 1e-9:
        t = end if math.isclose(h, lam(end) - lam(s), rel_tol=1e-14) else time_of(lam(s) + h)
        low, high = pair(x, s, t)
        delta = torch.clamp(rtol * torch.maximum(low.abs(), previous.abs()), min=atol)
        error = float(((high - low) / delta).square().flatten(1).mean(1).sqrt().max())
        calls += order
        steps.append((s, h, error, error <= 1))
        if error <= 1:
            x, s, previous = high, t, low
        h = min(theta * h * error ** (-1 / order), lam(end) - lam(s))
    return Found(x, steps, calls)


def k_diffusion(
    x: Tensor, start: float, end: float, data: Mixture, order: int, atol: float, rtol: float, h: float, **pid: float
) -> Found:
    """Step x_bar = x / alpha over -log(sigma / alpha) with k-diffusion's controller and its error over the batch."""
    p, i, d = (pid.get(name, value) for name, value in (("pcoeff", 0.0), ("icoeff", 1.0), ("dcoeff", 0.0)))
    powers = ((p + i + d) / order, -(p + 2 * d) / order, d / order)
    s, last, previous, steps, calls = lam(start), lam(end), x, [], 0
    history: list[float] = []

    def eps(x_bar: Tensor, at: float) -> Tensor:
        return data.eps(alpha(time_of(at)) * x_bar, time_of(at))

    while s < last - 1e-5:
        t = min(last, s + h)
        step, e0 = t - s, eps(x, s)
        r1, r2 = (0.5, math.nan) if order == 2 else (1 / 3, 2 / 3)

        def euler(part: float, x: Tensor = x, s: float = s, step: float = step, e0: Tensor = e0) -> Tensor:
            return x - math.exp(-(s + part * step)) * math.expm1(part * step) * e0

        d1 = eps(euler(r1), s + r1 * step) - e0
        two = euler(1.0) - math.exp(-t) / (2 * r1) * math.expm1(step) * d1
        low, high = euler(1.0), two
        if order == 3:
            bent = math.exp(-(s + r2 * step)) * (r2 / r1) * (math.expm1(r2 * step) / (r2 * step) - 1)
            d2 = eps(euler(r2) - bent * d1, s + r2 * step) - e0
            low, high = two, euler(1.0) - math.exp(-t) / r2 * (math.expm1(step) / step - 1) * d2
        delta = torch.clamp(rtol * torch.maximum(low.abs(), previous.abs()), min=atol)
        error = float(((low - high) / delta).norm()) / x.numel() ** 0.5
        calls += order
        inverse = 1 / (error + 1e-8)
        history = history or [inverse] * 3
        history[0] = inverse
        factor = 1 + math.atan(math.prod(e**power for e, power in zip(history, powers)) - 1)
        accepted = factor >= pid.get("accept_safety", 0.81)
        steps.append((time_of(s), step, error, accepted))
        if accepted:
            history = [inverse, inverse, history[1]]
            x, s, previous = high, t, low
        h *= factor
    return Found(x, steps, calls)
