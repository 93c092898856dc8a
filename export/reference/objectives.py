"""What a reference network can be trained to: a loss, the times that it draws, and how samplers are told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dpmrt.errors import OptionError
from dpmrt.export.reference import unet
from dpmrt.export.reference.losses import Model
from dpmrt.export.reference.losses.denoising import denoising_loss
from dpmrt.export.reference.losses.learned_range import hybrid_loss
from dpmrt.export.reference.losses.score import score_by_sigma, score_loss, score_of_epsilon
from dpmrt.export.reference.losses.smld import smld_loss
from dpmrt.export.reference.sdes import SDE, sub_vp_sde, ve_sde, vp_sde
from dpmrt.solvers_np.from_diffusers.own_schedule import OWN_SCHEDULE

#: networks of the VP and sub-VP SDEs are told 999 t, those of the VE SDE sigma, as in the code of Song et al. 2021
TIME_SCALE = 999.0
SIGMA_MIN = 0.01
SMLD_LEVELS = 32
#: score matching draws no times before this one, where a network would have to answer without bound
FIRST_TIME = 1e-3


@dataclass(frozen=True)
class Objective:
    """`loss(model, x0, t, noise)` at times from `times(batch, generator)`; `scheduler` is a bundle's config."""

    name: str
    scheduler: Mapping[str, Any]
    times: Callable[[int, torch.Generator], torch.Tensor]
    loss: Callable[[Model, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    by_sigma: bool = False
    learned_variance: bool = False


def _ddpm(target: str) -> Callable[[str, float], Objective]:
    def make(name: str, sigma_max: float) -> Objective:
        table = unet.alphas_cumprod()
        scheduler = {
            "_class_name": "DPMSolverMultistepScheduler",
            **unet.NOISE_CONFIG,
            "prediction_type": target,
            "algorithm_type": "dpmsolver++",
            "solver_order": 2,
        }
        return Objective(
            name,
            scheduler,
            lambda batch, generator: torch.randint(len(table), (batch,), generator=generator),
            lambda model, x0, t, noise: denoising_loss(model, x0, t, noise, table, target),
        )

    return make


def _learned_range(name: str, sigma_max: float) -> Objective:
    table = unet.alphas_cumprod()
    scheduler = {
        "_class_name": "DDPMScheduler",
        **unet.NOISE_CONFIG,
        "variance_type": "learned_range",
        "clip_sample": False,
        "timestep_spacing": "trailing",
    }
    return Objective(
        name,
        scheduler,
        lambda batch, generator: torch.randint(len(table), (batch,), generator=generator),
        lambda model, x0, t, noise: hybrid_loss(model, x0, t, noise, table),
        learned_variance=True,
    )


def _ve_scheduler(sigma_max: float, levels: int) -> dict[str, Any]:
    return {
        "_class_name": "ScoreSdeVeScheduler",
        "num_train_timesteps": levels,
        "sigma_min": SIGMA_MIN,
        "sigma_max": sigma_max,
        "correct_steps": 0,
    }


def _smld(name: str, sigma_max: float) -> Objective:
    # as the NCSN paper has them: a geometric ladder
    sigmas = torch.logspace(*torch.tensor([SIGMA_MIN, sigma_max]).log10().tolist(), SMLD_LEVELS)
    return Objective(
        name,
        _ve_scheduler(sigma_max, SMLD_LEVELS),
        lambda batch, generator: torch.randint(SMLD_LEVELS, (batch,), generator=generator),
        lambda model, x0, t, noise: smld_loss(model, x0, t, noise, sigmas),
        by_sigma=True,
    )


def _score(sde_of: Callable[[float], SDE], schedule: str | None, likelihood: bool) -> Callable[..., Objective]:
    """Score matching on an SDE; with the likelihood's weight, times are drawn as often as they weigh."""

    def make(name: str, sigma_max: float) -> Objective:
        sde = sde_of(sigma_max)
        by_sigma = schedule is None

        def score(model: Model) -> Model:
            return score_by_sigma(model, sde) if by_sigma else score_of_epsilon(model, sde, TIME_SCALE)

        def times(batch: int, generator: torch.Generator) -> torch.Tensor:
            u = torch.rand(batch, generator=generator, dtype=torch.float64)
            return sde.times_by_lambda(u, FIRST_TIME) if likelihood else FIRST_TIME + (1 - FIRST_TIME) * u

        def loss(model: Model, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            density = sde.density_by_lambda(t, FIRST_TIME) if likelihood else None
            return score_loss(score(model), x0, t, noise, sde, likelihood_weighting=likelihood, density=density)

        scheduler = _ve_scheduler(sigma_max, 1000) if schedule is None else _own_scheduler(schedule)
        return Objective(name, scheduler, times, loss, by_sigma=by_sigma)

    return make


def _own_scheduler(schedule: str) -> dict[str, Any]:
    return {
        "_class_name": OWN_SCHEDULE,
        "schedule": schedule,
        "parameters": {"beta_min": 0.1, "beta_max": 20.0, "t_min": FIRST_TIME, "time_scale": TIME_SCALE},
        "prediction_type": "epsilon",
        "solver": "dpmsolver++",
    }


def _ve(sigma_max: float) -> SDE:
    return ve_sde(SIGMA_MIN, sigma_max)


OBJECTIVES: Mapping[str, Callable[[str, float], Objective]] = {
    "ddpm": _ddpm("epsilon"),
    "velocity": _ddpm("v_prediction"),
    "learned-range": _learned_range,
    "smld": _smld,
    "ve": _score(_ve, None, False),
    "vp": _score(lambda _: vp_sde(), "vp-linear", False),
    "sub-vp": _score(lambda _: sub_vp_sde(), "sub-vp", False),
    "ve-likelihood": _score(_ve, None, True),
    "vp-likelihood": _score(lambda _: vp_sde(), "vp-linear", True),
    "sub-vp-likelihood": _score(lambda _: sub_vp_sde(), "sub-vp", True),
}


def make_objective(name: str, *, sigma_max: float = 10.0) -> Objective:
    """Return the objective of a name; `sigma_max` is the largest noise of those whose variance explodes.

    >>> make_objective("sub-vp").scheduler["schedule"]
    'sub-vp'
    """
    if name not in OBJECTIVES:
        raise OptionError("unknown loss", got=name, expected=", ".join(OBJECTIVES), fix="pass --loss ddpm")
    return OBJECTIVES[name](name, sigma_max)
