"""The named noise schedules: functions of their parameters. SCHEDULES lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.options import call_with_options, choose, whole
from dpmrt.solvers_np.schedules import betas
from dpmrt.solvers_np.schedules.betas import MAX_TRAIN_STEPS, Knots
from dpmrt.solvers_np.schedules.continuous import EDM, CosineVP, LinearVP, SubVP, VarianceExploding
from dpmrt.solvers_np.schedules.flow import RectifiedFlow, shift_of
from dpmrt.solvers_np.schedules.schedule import DiscreteVP, NoiseSchedule
from dpmrt.solvers_np.schedules.smld import SMLD


def _discrete(name: str, values: Floats, zero_snr: bool) -> DiscreteVP:
    schedule = NoiseSchedule.from_betas(values, name=name)
    return DiscreteVP(betas.zero_terminal_snr(schedule.alphas_cumprod), name=name) if zero_snr else schedule


def linear(
    train_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, zero_snr: bool = False
) -> DiscreteVP:
    """Make the schedule of betas evenly spaced (Ho et al. 2020, section 4)."""
    return _discrete("linear", betas.linear(train_steps, beta_start, beta_end), zero_snr)


def scaled_linear(
    train_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012, zero_snr: bool = False
) -> DiscreteVP:
    """Make the schedule of betas evenly spaced in their square root (latent diffusion)."""
    return _discrete("scaled_linear", betas.scaled_linear(train_steps, beta_start, beta_end), zero_snr)


def cosine(
    train_steps: int = 1000,
    s: float = 0.008,
    beta_min: float = 1e-4,
    beta_max: float = 0.9999,
    zero_snr: bool = False,
) -> DiscreteVP:
    """Make the squared-cosine schedule (Nichol and Dhariwal 2021, eq. 17), its betas clipped at both ends."""
    return _discrete("cosine", betas.cosine(train_steps, s, beta_min, beta_max), zero_snr)


def squaredcos_cap_v2(train_steps: int = 1000, beta_max: float = 0.999, zero_snr: bool = False) -> DiscreteVP:
    """Make the squared-cosine schedule with its betas capped above only, as diffusers computes them."""
    return _discrete("squaredcos_cap_v2", betas.squaredcos_cap_v2(train_steps, beta_max), zero_snr)


def sigmoid(
    train_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, zero_snr: bool = False
) -> DiscreteVP:
    """Make the schedule of betas on a logistic curve (GeoDiff)."""
    return _discrete("sigmoid", betas.sigmoid(train_steps, beta_start, beta_end), zero_snr)


def quadratic(
    train_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, zero_snr: bool = False
) -> DiscreteVP:
    """Make the schedule of betas on a parabola."""
    return _discrete("quadratic", betas.quadratic(train_steps, beta_start, beta_end), zero_snr)


def exponential(
    train_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, zero_snr: bool = False
) -> DiscreteVP:
    """Make the schedule of betas evenly spaced in their logarithm."""
    return _discrete("exponential", betas.exponential(train_steps, beta_start, beta_end), zero_snr)


def piecewise_linear(
    train_steps: int = 1000, knots: Knots = ((0.0, 1e-4), (1.0, 0.02)), zero_snr: bool = False
) -> DiscreteVP:
    """Make the schedule of betas on lines between knots (u, beta), u rising from 0 to 1."""
    return _discrete("piecewise_linear", betas.piecewise_linear(train_steps, knots), zero_snr)


def vp_linear(
    beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3, time_scale: float = 1.0
) -> LinearVP:
    """Make the VP SDE (Song et al. 2021). score_sde's networks take 999 t: time_scale=999."""
    return LinearVP("vp-linear", beta_min, beta_max, t_min, time_scale)


def vp_cosine(s: float = 0.008, t_min: float = 1e-3, t_max: float = 0.9946, time_scale: float = 1.0) -> CosineVP:
    """Make the cosine schedule of continuous time, stopped before its signal ends, as DPM-Solver's code does."""
    return CosineVP(s, t_min, t_max, time_scale)


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3, time_scale: float = 1.0) -> SubVP:
    """Make the sub-VP SDE (Song et al. 2021). score_sde's networks take 999 t: time_scale=999."""
    return SubVP("sub-vp", beta_min, beta_max, t_min, time_scale)


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0, network_time: str = "t") -> VarianceExploding:
    """Make the VE SDE (Song et al. 2021). score_sde's networks take sigma: network_time="sigma"."""
    return VarianceExploding(sigma_min, sigma_max, network_time)


def smld(train_steps: int = 1000, sigma_min: float = 0.01, sigma_max: float = 50.0) -> SMLD:
    """Make the noise levels of SMLD, which networks know by number, from the noisiest on."""
    return SMLD(train_steps, sigma_min, sigma_max)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5) -> EDM:
    """Make EDM's setting (Karras et al. 2022)."""
    return EDM(sigma_min, sigma_max, sigma_data)


def flow(train_steps: int = 1000, shift: float = 1.0, mu: float | None = None) -> RectifiedFlow:
    """Make rectified flow, its times shifted by a number, or by exp(mu) with mu from `flow_mu(tokens)`."""
    return RectifiedFlow(train_steps, shift_of(shift, mu))


SCHEDULES: Mapping[str, Callable[..., NoiseSchedule]] = MappingProxyType(
    {
        "linear": linear,
        "scaled_linear": scaled_linear,
        "cosine": cosine,
        "cosine_beta": squaredcos_cap_v2,
        "squaredcos_cap_v2": squaredcos_cap_v2,
        "sigmoid": sigmoid,
        "quadratic": quadratic,
        "exponential": exponential,
        "piecewise_linear": piecewise_linear,
        "vp-linear": vp_linear,
        "vp-cosine": vp_cosine,
        "sub-vp": sub_vp,
        "ve": ve,
        "smld": smld,
        "edm": edm,
        "flow": flow,
    }
)


def make_schedule(name: str, **params: Any) -> NoiseSchedule:
    """Make a noise schedule by name.

    >>> schedule = make_schedule("linear", train_steps=1000)
    >>> round(float(schedule.lambda_(0)), 3)
    4.605
    """
    factory = choose("schedule", name, SCHEDULES)
    if "train_steps" in params:
        whole("train_steps", params["train_steps"], 2, MAX_TRAIN_STEPS)
    return call_with_options(f"schedule {name!r}", factory, params)
