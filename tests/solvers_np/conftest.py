"""What the tests of solvers_np share: diffusers as a reference, run in its own float32 or in float64."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import types
import unittest.mock
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("dpmrt", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("thorough", deadline=None, max_examples=3000)
settings.load_profile(os.environ.get("DPMRT_HYPOTHESIS", "dpmrt"))


@dataclasses.dataclass
class Run:
    """A trajectory: the time of each network call, and the state after it."""

    times: np.ndarray
    states: list[np.ndarray]


class _Widened(types.ModuleType):
    """torch or numpy whose `float32` is float64, so that code that asks for float32 computes in float64."""

    def __init__(self, module: Any) -> None:
        super().__init__(module.__name__)
        self._module = module
        self.float32 = module.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class Diffusers:
    """Runs a diffusers scheduler on network outputs and noise that were drawn before."""

    def __init__(self) -> None:
        self.torch = pytest.importorskip("torch")
        self.package = pytest.importorskip("diffusers")
        self.package.utils.logging.set_verbosity_error()

    def scheduler(
        self, config: dict[str, Any], steps: int | None = None, *, double: bool = False, table: Any = None
    ) -> Any:
        """Make a scheduler, with `table` in place of its cumulative alphas, and set its timesteps."""
        kind = getattr(self.package, config["_class_name"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = kind(**{key: value for key, value in config.items() if not key.startswith("_")})
        if table is not None:
            scheduler.alphas_cumprod = self.torch.from_numpy(np.array(table))
        if double:
            self._widen(scheduler)
        if steps is not None:
            with warnings.catch_warnings(), self._float64(scheduler, double):
                warnings.simplefilter("ignore")
                scheduler.set_timesteps(steps)
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(0)
        return scheduler

    def run(
        self,
        config: dict[str, Any],
        steps: int,
        x: np.ndarray,
        outputs: np.ndarray,
        noise: np.ndarray,
        *,
        table: Any = None,
        **step: Any,
    ) -> Run:
        """Step through a scheduler; float64 input makes diffusers compute in float64 throughout."""
        torch = self.torch
        double = x.dtype == np.float64
        scheduler = self.scheduler(config, steps, double=double, table=table)
        module = importlib.import_module(type(scheduler).__module__)
        state, states = torch.from_numpy(x), []
        with warnings.catch_warnings(), self._float64(scheduler, double):
            warnings.simplefilter("ignore")
            for index, t in enumerate(scheduler.timesteps):
                draw = torch.from_numpy(noise[index])
                with unittest.mock.patch.object(module, "randn_tensor", lambda *a, draw=draw, **k: draw):
                    state = scheduler.step(torch.from_numpy(outputs[index]), t, state, **step).prev_sample
                states.append(state.numpy().copy())
        return Run(scheduler.timesteps.numpy(), states)

    def _widen(self, scheduler: Any) -> None:
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        if hasattr(scheduler, "one"):
            scheduler.one = scheduler.one.double()
        if hasattr(scheduler, "final_alpha_cumprod"):
            first = scheduler.alphas_cumprod[0]
            one = self.torch.ones_like(first)
            scheduler.final_alpha_cumprod = one if scheduler.config.set_alpha_to_one else first
        if hasattr(scheduler, "lambda_t"):
            bars = scheduler.alphas_cumprod
            scheduler.lambda_t = (bars.log() - (1 - bars).log()) / 2

    def _float64(self, scheduler: Any, double: bool) -> Any:
        module = importlib.import_module(type(scheduler).__module__)
        if not double:
            return contextlib.nullcontext()
        return unittest.mock.patch.multiple(module, torch=_Widened(self.torch), np=_Widened(np))


@pytest.fixture(scope="session")
def peer() -> Diffusers:
    return Diffusers()


def _relative_rms(got: np.ndarray, want: np.ndarray) -> float:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.sqrt(((got - want) ** 2).mean() / (want**2).mean()))


@pytest.fixture(scope="session")
def relative_rms() -> Callable[[np.ndarray, np.ndarray], float]:
    return _relative_rms
