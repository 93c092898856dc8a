"""Diffusers as a reference: its schedulers, run in their own float32 or in float64."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import types
import unittest.mock
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

Config = dict[str, Any]
#: keys of our configs that diffusers takes in set_timesteps, and those that it takes in step
IN_SET = ("mu", "sigmas", "timesteps", "strength")
IN_STEP = ("eta", "use_clipped_model_output", "s_churn", "s_tmin", "s_tmax", "s_noise", "order")


@dataclasses.dataclass
class Run:
    """A trajectory: the time of each network call, what scales its input, the state after it, and the first scale."""

    times: np.ndarray
    states: list[np.ndarray]
    scales: list[float]
    init_scale: float


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
        self,
        config: Config,
        steps: int | None = None,
        *,
        double: bool = False,
        table: Any = None,
    ) -> Any:
        """Make a scheduler, with `table` in place of its cumulative alphas, and set its timesteps."""
        kind = self._kind(config["_class_name"])
        keys = {key: v for key, v in config.items() if not key.startswith("_") and key not in (*IN_SET, *IN_STEP)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = kind(**keys)
            if double and not hasattr(scheduler, "alphas_cumprod"):
                with self.float64(scheduler, True):
                    scheduler = kind(**keys)
        if table is not None:
            scheduler.alphas_cumprod = self.torch.from_numpy(np.array(table))
        if double:
            self._widen(scheduler)
        if steps is not None:
            given = {key: np.array(config[key])[()] for key in IN_SET if config.get(key) is not None}
            if "sigmas" not in given and "timesteps" not in given:  # which say themselves how many
                given["num_inference_steps"] = steps
            with warnings.catch_warnings(), self.float64(scheduler, double):
                warnings.simplefilter("ignore")
                scheduler.set_timesteps(**given)
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(0)
        return scheduler

    def run(
        self,
        config: Config,
        steps: int,
        x: np.ndarray,
        outputs: np.ndarray,
        noise: np.ndarray,
        *,
        table: Any = None,
    ) -> Run:
        """Step through a scheduler; float64 input makes diffusers compute in float64 throughout."""
        torch = self.torch
        double = x.dtype == np.float64
        scheduler = self.scheduler(config, steps, double=double, table=table)
        step = {key: config[key] for key in IN_STEP if key in config}
        module = importlib.import_module(type(scheduler).__module__)
        state, states, scales, one = torch.from_numpy(x), [], [], torch.ones(1, dtype=torch.from_numpy(x).dtype)
        with warnings.catch_warnings(), self.float64(scheduler, double):
            warnings.simplefilter("ignore")
            for index, t in enumerate(scheduler.timesteps):
                draw = torch.from_numpy(noise[index])
                if hasattr(scheduler, "noise_sampler"):
                    scheduler.noise_sampler = lambda *_, draw=draw: draw
                scaled = scheduler.scale_model_input(one, t) if hasattr(scheduler, "scale_model_input") else one
                scales.append(float(scaled))
                with unittest.mock.patch.object(module, "randn_tensor", lambda *a, draw=draw, **k: draw, create=True):
                    state = scheduler.step(torch.from_numpy(outputs[index]), t, state, **step).prev_sample
                states.append(state.numpy().copy())
        first = float(getattr(scheduler, "init_noise_sigma", 1.0))
        return Run(scheduler.timesteps.numpy(), states, scales, first)

    def _kind(self, name: str) -> Any:
        if name != "DPMSolverSDEScheduler":
            return getattr(self.package, name)
        # its noise alone needs torchsde; set_timesteps and the formulas do without
        stub = sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
        module: Any = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
        if not hasattr(stub, "__file__"):
            del sys.modules["torchsde"]
        return module.DPMSolverSDEScheduler

    def _widen(self, scheduler: Any) -> None:
        if not hasattr(scheduler, "alphas_cumprod"):
            return
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        if hasattr(scheduler, "one"):
            scheduler.one = scheduler.one.double()
        if hasattr(scheduler, "final_alpha_cumprod"):
            first = scheduler.alphas_cumprod[0]
            one = self.torch.ones_like(first)
            scheduler.final_alpha_cumprod = one if scheduler.config.set_alpha_to_one else first
        if hasattr(scheduler, "initial_alpha_cumprod"):
            first = scheduler.alphas_cumprod[0]
            one = self.torch.ones_like(first)
            scheduler.initial_alpha_cumprod = one if scheduler.config.set_alpha_to_one else first
        if hasattr(scheduler, "lambda_t"):
            bars = scheduler.alphas_cumprod
            scheduler.lambda_t = (bars.log() - (1 - bars).log()) / 2

    @contextlib.contextmanager
    def float64(self, scheduler: Any, double: bool) -> Iterator[None]:
        """Let the scheduler's code that asks for float32 have float64, if `double`."""
        module = importlib.import_module(type(scheduler).__module__)
        if not double:
            yield
            return
        default = self.torch.get_default_dtype()
        self.torch.set_default_dtype(self.torch.float64)
        try:
            with unittest.mock.patch.multiple(module, torch=_Widened(self.torch), np=_Widened(np), create=True):
                yield
        finally:
            self.torch.set_default_dtype(default)
