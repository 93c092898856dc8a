"""One training loop for every reference network: AdamW, warm-up and cosine decay, EMA, a wall-clock limit."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dpmrt.errors import NonFiniteError, OptionError


@dataclass(frozen=True)
class TrainOptions:
    """How to train. With `steps`, a run that `minutes` does not cut short is repeatable; without, it fills them."""

    minutes: float = 18.0
    steps: int | None = None
    batch: int = 64
    lr: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-4
    ema: float = 0.999
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        _require("minutes", self.minutes, 0 < self.minutes <= 1440, "more than 0, at most 1440", "--minutes 18")
        _require("steps", self.steps, self.steps is None or self.steps >= 1, "1 or more", "--steps 5000")
        _require("batch", self.batch, 1 <= self.batch <= 4096, "1 to 4096", "--batch 64")
        _require("lr", self.lr, 0 < self.lr <= 1, "more than 0, at most 1", "--lr 0.001")
        _require("warmup", self.warmup, self.warmup >= 0, "0 or more", "--warmup 200")
        _require("weight_decay", self.weight_decay, 0 <= self.weight_decay <= 1, "0 to 1", "--weight-decay 0.0001")
        _require("ema", self.ema, 0 <= self.ema < 1, "0 to less than 1", "--ema 0.999")
        _require("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2**63 - 1", "--seed 0")
        _require("threads", self.threads, 1 <= self.threads <= 1024, "1 to 1024", "--threads 2")


@dataclass(frozen=True)
class Progress:
    """Where a training run stands after a step."""

    step: int
    fraction: float
    seconds: float
    loss: float
    smooth_loss: float
    ema: float
    lr: float


@dataclass(frozen=True)
class Fitted:
    """The averaged weights of a finished run and what it took to get them."""

    model: torch.nn.Module
    steps: int
    minutes: float
    final_loss: float


def fit(
    model: torch.nn.Module,
    loss: Callable[[torch.Generator], torch.Tensor],
    options: TrainOptions,
    on_progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Minimise `loss`, which draws all of its randomness from the generator that it is handed.

    The returned model is the exponential moving average, in eval mode; `final_loss` is smoothed over the last
    hundred steps or so.
    """
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay, foreach=True)
    generator = torch.Generator().manual_seed(options.seed)
    model.train()
    start = time.monotonic()
    limit = options.minutes * 60.0
    step, smooth, seconds, fraction = 0, math.nan, 0.0, 0.0
    with _threads(options.threads):
        while seconds < limit and (options.steps is None or step < options.steps):
            # With `steps`, the rate may not depend on the clock: it would make the weights depend on it too.
            fraction = seconds / limit if options.steps is None else step / options.steps
            lr = options.lr * min(1.0, (step + 1) / max(options.warmup, 1)) * _cosine(fraction)
            for group in optimiser.param_groups:
                group["lr"] = lr
            value = loss(generator)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            decay = min(options.ema, (1 + step) / (10 + step))
            _blend(average, model, decay)
            step += 1
            latest = float(value.detach())
            if not math.isfinite(latest):
                raise NonFiniteError(
                    f"the loss is no longer finite at step {step}",
                    got=latest,
                    expected="a finite loss",
                    fix=f"train with a smaller rate, such as --lr {options.lr / 4:g}",
                )
            smooth = latest if step == 1 else smooth + max(0.01, 1 / step) * (latest - smooth)
            seconds = time.monotonic() - start
            if on_progress is not None:
                done = seconds / limit if options.steps is None else step / options.steps
                on_progress(Progress(step, min(1.0, done), seconds, latest, smooth, decay, lr))
    return Fitted(average, step, seconds / 60.0, smooth)


def _cosine(fraction: float) -> float:
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))


def _blend(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _require(name: str, value: object, holds: bool, expected: str, fix: str) -> None:
    if not holds:
        raise OptionError(f"{name} is out of range", got=value, expected=expected, fix=f"pass {fix}")
