"""Sigmas and times against those that diffusers' schedulers keep.

diffusers is run twice: widened to float64, where nothing but a formula can make a difference, and as it is.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from trajectories import Config, our_table

from dpmrt.errors import OptionError
from dpmrt.solvers_np.from_diffusers.config import SchedulerConfig
from dpmrt.solvers_np.from_diffusers.numbers import edm_sigmas, flow_sigmas, sigmas, solver_sigmas, times
from dpmrt.solvers_np.from_diffusers.numbers.schedule import SCHEDULE_KEYS, noise_ratios, read_schedule
from dpmrt.solvers_np.from_diffusers.numbers.sigma_ladders import times_of

STEPS = (1, 2, 3, 4, 7, 10, 20, 33, 50)
SPACINGS = ("linspace", "leading", "trailing")
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
LADDERS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


class Kind(NamedTuple):
    """A class of diffusers: our function for it, the keys that we read, and whether its times are whole."""

    read: Callable[[SchedulerConfig, int], Any]
    keys: Config
    whole: bool = False


KINDS = {
    "EulerDiscreteScheduler": Kind(sigmas.euler, sigmas.EULER_KEYS),
    "EulerAncestralDiscreteScheduler": Kind(sigmas.euler_ancestral, sigmas.EULER_ANCESTRAL_KEYS),
    "LMSDiscreteScheduler": Kind(sigmas.lms, sigmas.LMS_KEYS),
    "HeunDiscreteScheduler": Kind(sigmas.heun, sigmas.HEUN_KEYS),
    "KDPM2DiscreteScheduler": Kind(sigmas.kdpm2, sigmas.KDPM2_KEYS),
    "KDPM2AncestralDiscreteScheduler": Kind(sigmas.kdpm2_ancestral, sigmas.KDPM2_KEYS),
    "DPMSolverSDEScheduler": Kind(sigmas.dpm_sde, sigmas.DPM_SDE_KEYS),
    "DPMSolverMultistepScheduler": Kind(solver_sigmas.dpm_multistep, solver_sigmas.DPM_MULTISTEP_KEYS, True),
    "DPMSolverSinglestepScheduler": Kind(solver_sigmas.dpm_singlestep, solver_sigmas.DPM_SINGLESTEP_KEYS, True),
    "DPMSolverMultistepInverseScheduler": Kind(
        solver_sigmas.dpm_multistep_inverse, solver_sigmas.DPM_INVERSE_KEYS, True
    ),
    "UniPCMultistepScheduler": Kind(solver_sigmas.unipc, solver_sigmas.UNIPC_KEYS, True),
    "DEISMultistepScheduler": Kind(solver_sigmas.deis, solver_sigmas.DEIS_KEYS, True),
    "SASolverScheduler": Kind(solver_sigmas.sa_solver, solver_sigmas.SA_KEYS, True),
    "EDMEulerScheduler": Kind(edm_sigmas.edm, edm_sigmas.EDM_KEYS),
    "EDMDPMSolverMultistepScheduler": Kind(edm_sigmas.edm, edm_sigmas.EDM_KEYS),
    "FlowMatchEulerDiscreteScheduler": Kind(flow_sigmas.flow_match_euler, flow_sigmas.FLOW_MATCH_EULER_KEYS),
    "FlowMatchHeunDiscreteScheduler": Kind(flow_sigmas.flow_match_heun, flow_sigmas.FLOW_MATCH_HEUN_KEYS),
    "ScoreSdeVeScheduler": Kind(edm_sigmas.sde_ve, edm_sigmas.SDE_VE_KEYS),
    "PNDMScheduler": Kind(times.pndm, times.PNDM_KEYS, True),
    "IPNDMScheduler": Kind(times.ipndm, times.IPNDM_KEYS),
    "LCMScheduler": Kind(times.lcm, times.LCM_KEYS, True),
    "TCDScheduler": Kind(times.lcm, times.TCD_KEYS, True),
    "DDIMInverseScheduler": Kind(times.ddim_inverse, times.DDIM_INVERSE_KEYS, True),
}
K_CLASSES = tuple(KINDS)[:7]
SOLVER_CLASSES = tuple(KINDS)[7:13]


def ours(config: Config, steps: int) -> Any:
    name = config["_class_name"]
    return KINDS[name].read(SchedulerConfig(name, config, KINDS[name].keys), steps)


def theirs(peer: Any, config: Config, steps: int, *, double: bool) -> Any:
    scheduler = peer.scheduler(config, steps, double=double, table=our_table(config))
    if hasattr(scheduler, "set_sigmas"):
        with peer.float64(scheduler, double):
            scheduler.set_sigmas(steps)
    return scheduler


def unrounded(config: Config, found: Any) -> np.ndarray | None:
    """Return the times of a ladder before diffusers rounds or truncates them, none where there is no ladder."""
    if not any(config.get(key) for key in (*LADDERS, "use_lu_lambdas")):
        return None
    if config.get("use_flow_sigmas"):
        return found.sigmas[:-1] * config.get("num_train_timesteps", 1000)
    ratios = noise_ratios(SchedulerConfig("", config, KINDS[config["_class_name"]].keys))
    return np.unique(times_of(found.sigmas[:-1], ratios).round(12))


def hold_times(config: Config, found: Any, want: np.ndarray, double: bool) -> None:
    """Hold times against diffusers'. Whole ones are equal, except where rounding alone decides between two.

    That is so where the unrounded time lies at a whole or a half: the ends of every ladder do.
    """
    got = found if isinstance(found, np.ndarray) else found.timesteps
    if not KINDS[config["_class_name"]].whole:
        np.testing.assert_allclose(got, want, rtol=1e-10 if double else 2e-5, atol=1e-8 if double else 2e-3)
        return
    assert (got == np.floor(got)).all()
    fractions = unrounded(config, found)
    if fractions is None or (got == want).all():
        np.testing.assert_array_equal(got, want)
        return
    for mine, other in zip(got, want, strict=True):
        nearest = fractions[np.abs(fractions - max(mine, other)).argmin()]
        by_rounding = abs(2 * nearest - round(2 * nearest)) < 4e-3
        assert mine == other or (abs(mine - other) == 1 and by_rounding), f"t = {mine:g}, diffusers {other:g}"


def hold_sigmas(config: Config, found: sigmas.Sigmas, peer_has: Any, double: bool) -> None:
    rtol, highest = 1e-10 if double else 2e-6, found.sigmas.max()
    if not double and config["_class_name"] in K_CLASSES:  # read off the table at times rounded to float32
        table = noise_ratios(SchedulerConfig("", config, KINDS[config["_class_name"]].keys), also=("exp",))
        rtol *= (table[1:] / table[:-1]).max()

    def hold(got: Any, want: Any, rtol: float = rtol) -> None:
        atol = highest * (1e-15 if double else 1e-7 if "FlowMatch" in config["_class_name"] else 1e-9)
        if config.get("use_beta_sigmas"):  # diffusers counts a rising one down from the highest sigma
            atol = max(atol, 1e-11)
        np.testing.assert_allclose(got, np.asarray(want, np.float64), rtol=rtol, atol=atol)

    hold(found.sigmas, peer_has.sigmas)
    if "FlowMatch" not in config["_class_name"]:
        hold(found.init_noise_sigma, float(peer_has.init_noise_sigma))
    if isinstance(found, sigmas.AncestralSigmas):
        # diffusers takes the root of a difference of squares, which loses its digits where a step is long
        short, loose = found.levels[:-2] < 30 * found.levels[1:-1], 1e-9 if double else 1e-4
        for got, name in ((found.mid, "sigmas_interpol"), (found.down, "sigmas_down"), (found.up, "sigmas_up")):
            kept = np.asarray(getattr(peer_has, name), np.float64)
            want = np.append(kept[0], kept[1::2])[: len(short)]
            np.testing.assert_allclose(got[: len(short)][short], want[short], rtol=loose)
        assert found.down[-1] == found.up[-1] == 0
    elif hasattr(peer_has, "sigmas_interpol"):
        hold(found.mid, peer_has.sigmas_interpol[1:-3:2])
    if isinstance(found, edm_sigmas.VeSigmas):
        hold(found.discrete, peer_has.discrete_sigmas)


def compare(peer: Any, config: Config, steps: int) -> None:
    found = ours(config, steps)
    for double in (True, False):
        peer_has = theirs(peer, config, steps, double=double)
        want = np.asarray(peer_has.timesteps, np.float64)
        if KINDS[config["_class_name"]].whole:
            want = want[want >= 0]
        if isinstance(found, sigmas.AncestralSigmas):
            keep = np.append(True, np.repeat(found.levels[:-2] < 30 * found.levels[1:-1], 2))
            np.testing.assert_allclose(found.timesteps[keep], want[keep], atol=1e-6 if double else 2e-2)
        else:
            hold_times(config, found, want, double)
        if isinstance(found, sigmas.Sigmas):
            hold_sigmas(config, found, peer_has, double)


@pytest.fixture(scope="session")
def check(peer: Any) -> Callable[[Config, int], None]:
    def check(config: Config, steps: int) -> None:
        try:
            compare(peer, config, steps)
        except Exception as error:
            raise AssertionError(f"reproduce with steps={steps}, config={config}") from error

    return check


def with_ladder(config: Config, ladder: str | None) -> Config:
    return config if ladder is None else {**config, ladder: True}


def turns_back(config: Config) -> bool:
    """Return whether the rescaled table falls at its end: there rounding decides where diffusers finds a sigma."""
    if not config.get("rescale_betas_zero_snr"):
        return False
    return bool((np.diff(noise_ratios(SchedulerConfig("", config, KINDS[config["_class_name"]].keys))) < 0).any())


def no_time_before_the_first(config: Config, steps: int) -> bool:
    """Return whether "trailing" ends at time 0, and not at the -1 that we leave out with its sigma."""
    total = config.get("num_train_timesteps", 1000)
    return config.get("timestep_spacing") != "trailing" or len(np.arange(total, 0, -total / steps)) == steps


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", K_CLASSES)
def test_classes_of_k_diffusion(check: Callable, name: str, spacing: str) -> None:
    choice = random.Random(name + spacing).choice
    for schedule, ladder in itertools.product(SCHEDULES, (None, *LADDERS)):
        config = {"_class_name": name, "beta_schedule": schedule, "timestep_spacing": spacing}
        config |= {"num_train_timesteps": choice((100, 237)), "steps_offset": choice((0, 1))}
        if "rescale_betas_zero_snr" in KINDS[name].keys:
            config["rescale_betas_zero_snr"] = choice((True, False))
        steps = choice([n for n in STEPS if no_time_before_the_first(config, n)])
        if ladder is None or (ladder in KINDS[name].keys and not turns_back(config)):
            check(with_ladder(config, ladder), steps)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", SOLVER_CLASSES)
def test_classes_of_dpm_solver(check: Callable, name: str, schedule: str) -> None:
    keys = KINDS[name].keys
    choice = random.Random(name + schedule).choice
    for spacing, ladder in itertools.product(SPACINGS, (None, *LADDERS, "use_lu_lambdas", "use_flow_sigmas")):
        options = {
            "num_train_timesteps": choice((100, 237, 1000)),
            "timestep_spacing": spacing,
            "steps_offset": choice((0, 1)),
            "final_sigmas_type": choice(("zero", "sigma_min")),
            "lambda_min_clipped": choice((-math.inf, -5.1, -3.0)),
            "flow_shift": choice((0.5, 1.0, 3.0)),
            "rescale_betas_zero_snr": choice((True, False)),
        }
        config = {"_class_name": name, "beta_schedule": schedule, **{k: v for k, v in options.items() if k in keys}}
        if ladder is None or (ladder in keys and not turns_back(config)):
            check(with_ladder(config, ladder), choice(STEPS))


@pytest.mark.parametrize("ladder", [None, *LADDERS])
@pytest.mark.parametrize("interpolation", ["linear", "log_linear"])
def test_keys_of_euler(check: Callable, ladder: str | None, interpolation: str) -> None:
    choice = random.Random(repr(ladder) + interpolation).choice
    for final, kind, prediction in itertools.product(
        ("zero", "sigma_min"), ("discrete", "continuous"), ("epsilon", "v_prediction")
    ):
        config = {
            "_class_name": "EulerDiscreteScheduler",
            "num_train_timesteps": 150,
            "interpolation_type": interpolation,
            "timestep_type": kind,
            "final_sigmas_type": final,
            "prediction_type": prediction,
            "timestep_spacing": choice(SPACINGS[:2]),
            "sigma_min": choice((None, 0.002)),
            "sigma_max": choice((None, 700.0)),
        }
        check(with_ladder(config, ladder), choice(STEPS[1:]))
    given = {"_class_name": "EulerDiscreteScheduler", "sigmas": [14.6, 3.0, 0.5, 0.03, 0.0]}
    check(given, 4)


def test_the_exponential_schedule_of_heun(check: Callable) -> None:
    for total, steps in itertools.product((100, 1000), (3, 10)):
        check({"_class_name": "HeunDiscreteScheduler", "beta_schedule": "exp", "num_train_timesteps": total}, steps)


@pytest.mark.parametrize("total", [2, 100, 1000])
@pytest.mark.parametrize("schedule", ["sigmoid", "laplace"])
def test_the_tables_of_few_classes(peer: Any, schedule: str, total: int) -> None:
    config = {"_class_name": "DDPMScheduler", "beta_schedule": schedule, "num_train_timesteps": total}
    table = read_schedule(SchedulerConfig("DDPMScheduler", config, SCHEDULE_KEYS), also=(schedule,)).alphas_cumprod
    np.testing.assert_allclose(table, peer.scheduler(config).alphas_cumprod.numpy(), rtol=2e-7)


@pytest.mark.parametrize("ladder", [None, *LADDERS])
def test_flow_matching_euler(check: Callable, ladder: str | None) -> None:
    name = "FlowMatchEulerDiscreteScheduler"
    for steps, shift, terminal, inverted in itertools.product(
        (2, 5, 28), (0.7, 1.0, 3.0), (None, 0.02), (True, False)
    ):
        config = {"_class_name": name, "shift": shift, "shift_terminal": terminal, "invert_sigmas": inverted}
        check(with_ladder(config, ladder), steps)
    check(with_ladder({"_class_name": name}, ladder), 1)
    for mu, kind in itertools.product((0.5, 1.15), ("exponential", "linear")):
        dynamic = {"_class_name": name, "use_dynamic_shifting": True, "mu": mu, "time_shift_type": kind}
        check(with_ladder(dynamic, ladder), 9)
        check(with_ladder({**dynamic, "sigmas": [1.0, 0.75, 0.5, 0.25]}, ladder), 4)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_flow_sigmas_of_unipc(check: Callable, kind: str) -> None:
    flow = {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "time_shift_type": kind}
    for steps, final in itertools.product((1, 2, 8, 30), ("zero", "sigma_min")):
        check({**flow, "flow_shift": 5.0, "final_sigmas_type": final}, steps)
        check({**flow, "use_dynamic_shifting": True, "mu": 0.8, "final_sigmas_type": final}, steps)
        check({**flow, "use_karras_sigmas": True, "sigma_min": 0.01, "sigma_max": 200.0}, steps)
        check({**flow, "shift_terminal": 0.1}, steps + 1)
    check({**flow, "sigmas": [0.9, 0.6, 0.2]}, 3)


@pytest.mark.parametrize(
    "name", ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler"]
)
def test_dynamic_shift_of_flow_sigmas(check: Callable, name: str) -> None:
    for mu in (0.3, 1.2):
        check({"_class_name": name, "use_flow_sigmas": True, "use_dynamic_shifting": True, "mu": mu}, 12)


def test_the_shift_of_a_resolution_lies_on_the_line_between_its_ends() -> None:
    dynamic = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    for length, mu in ((256, 0.5), (4096, 1.15), (2176, 0.825)):
        by_length, by_mu = ours({**dynamic, "image_seq_len": length}, 6), ours({**dynamic, "mu": mu}, 6)
        np.testing.assert_allclose(by_length.sigmas, by_mu.sigmas, rtol=1e-14)


def test_the_other_classes(check: Callable) -> None:
    for steps, shift in itertools.product((1, 2, 10, 28), (0.7, 1.0, 3.0)):
        check({"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": shift}, steps)
    for name, ladder, final, steps in itertools.product(
        ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"),
        ("karras", "exponential"),
        ("zero", "sigma_min"),
        (1, 2, 18),
    ):
        if steps == 1 and name == "EDMEulerScheduler" and final == "sigma_min":
            continue  # diffusers repeats its only sigma, and does nothing
        check({"_class_name": name, "sigma_schedule": ladder, "final_sigmas_type": final, "rho": 6.0}, steps)
    for steps in (1, 2, 100, 1000):
        check({"_class_name": "ScoreSdeVeScheduler"}, steps)
        check({"_class_name": "IPNDMScheduler"}, steps)
    check({"_class_name": "IPNDMScheduler", "trained_betas": [0.875, 0.5, 0.125, 0.0]}, 3)
    for spacing, skip, steps in itertools.product(SPACINGS, (True, False), (4, 5, 10, 50, 61)):
        if spacing != "trailing" or steps != 61:
            check({"_class_name": "PNDMScheduler", "timestep_spacing": spacing, "skip_prk_steps": skip}, steps)
    for name, original, strength, steps in itertools.product(
        ("LCMScheduler", "TCDScheduler"), (50, 33, 1000), (1.0, 0.5), (1, 4, 16)
    ):
        check({"_class_name": name, "original_inference_steps": original, "strength": strength}, steps)
    for spacing, steps, offset in itertools.product(("leading", "trailing"), (1, 7, 50, 61), (0, 1)):
        check({"_class_name": "DDIMInverseScheduler", "timestep_spacing": spacing, "steps_offset": offset}, steps)


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    """Draw a class, its schedule, spacing and ladder, and what decides where the sigmas end."""
    name = draw(st.sampled_from([*K_CLASSES, *SOLVER_CLASSES]))
    keys, pick, flag = KINDS[name].keys, st.sampled_from, st.booleans()
    config: Config = {
        "num_train_timesteps": draw(st.integers(20, 300)),
        "beta_schedule": draw(pick(SCHEDULES)),
        "beta_start": draw(st.floats(1e-5, 1e-3)),
        "beta_end": draw(st.floats(2e-3, 0.05)),
        "timestep_spacing": draw(pick(SPACINGS)),
        "steps_offset": draw(st.integers(0, 2)),
        "rescale_betas_zero_snr": draw(pick([False, False, True])),
        "final_sigmas_type": draw(pick(["zero", "sigma_min"])),
        "interpolation_type": draw(pick(["linear", "log_linear"])),
        "timestep_type": draw(pick(["discrete", "continuous"])),
        "prediction_type": draw(pick(["epsilon", "v_prediction"])),
        "lambda_min_clipped": draw(pick([-math.inf, -5.1, -3.0])),
        "flow_shift": draw(st.floats(0.3, 8.0)),
    }
    ladder = draw(pick([None, *LADDERS, "use_lu_lambdas", "use_flow_sigmas"]))
    config = with_ladder(config, ladder)
    if draw(flag) and ladder in LADDERS:
        config |= {"sigma_min": draw(st.floats(1e-3, 0.02)), "sigma_max": draw(st.floats(5.0, 500.0))}
    return {"_class_name": name, **{key: value for key, value in config.items() if key in keys}}


@given(config=configurations(), steps=st.integers(1, 60))
def test_drawn_configurations(peer: Any, check: Callable, config: Config, steps: int) -> None:
    ladder = any(config.get(key) for key in (*LADDERS, "use_lu_lambdas"))
    assume(not (ladder and turns_back(config)))
    try:
        ours(config, steps)
    except OptionError as error:
        assume(not any(text in str(error) for text in ("more steps than", "leaves the training times")))
        raise
    if config.get("timestep_spacing") == "trailing":
        discrete = {key: value for key, value in config.items() if key != "timestep_type"}
        assume(theirs(peer, discrete, steps, double=False).timesteps.min() >= 0)
    check(config, steps)


# What is different on purpose.


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "KDPM2DiscreteScheduler", "DPMSolverSDEScheduler"])
def test_trailing_leaves_out_the_time_minus_one_and_its_sigma(peer: Any, name: str) -> None:
    config = {"_class_name": name, "timestep_spacing": "trailing"}
    kept = peer.scheduler(config, 61)
    found = ours(config, 61)
    assert kept.timesteps.tolist()[-1] == -1
    np.testing.assert_allclose(found.timesteps, kept.timesteps.numpy()[: len(found.timesteps)], rtol=1e-5)
    assert len(getattr(found, "levels", found.sigmas)) == 62


@pytest.mark.parametrize("ladder", ["use_exponential_sigmas", "use_beta_sigmas"])
def test_a_ladder_starts_at_the_last_training_time(peer: Any, ladder: str) -> None:
    for name in ("DPMSolverMultistepScheduler", "DEISMultistepScheduler"):
        config = {"_class_name": name, "beta_start": 0.00085, "beta_end": 0.012, ladder: True}
        assert peer.scheduler(config, 10).timesteps[0] == 998  # a logarithm in float32, then truncation
        assert ours(config, 10).timesteps[0] == 999


def test_long_ancestral_steps_keep_their_digits(peer: Any) -> None:
    config = {"_class_name": "KDPM2AncestralDiscreteScheduler", "beta_schedule": "squaredcos_cap_v2"}
    found, kept = ours(config, 5), peer.scheduler(config, 5)
    exact = found.levels[1] ** 2 / found.levels[0]
    assert found.down[0] == pytest.approx(exact, rel=1e-12)
    assert abs(float(kept.sigmas_down[0]) / exact - 1) > 0.1


REFUSED = [
    (
        "EulerDiscreteScheduler",
        1001,
        {"timestep_spacing": "leading"},
        "more steps than 'leading' has times.*1 to 1000",
    ),
    ("EulerDiscreteScheduler", 999, {"timestep_spacing": "leading", "steps_offset": 2}, "leaves the training times"),
    (
        "EulerDiscreteScheduler",
        5,
        {"use_karras_sigmas": True, "use_beta_sigmas": True},
        "only one ladder.*and use_beta",
    ),
    ("EulerDiscreteScheduler", 5, {"use_karras_sigmas": True, "sigma_min": 0.0}, "sigma_min must be positive.*0.0"),
    (
        "EulerDiscreteScheduler",
        5,
        {"use_karras_sigmas": True, "sigma_min": 20.0, "sigma_max": 9.0},
        "from 9 down to 20",
    ),
    ("EulerDiscreteScheduler", 5, {"interpolation_type": "cubic"}, "interpolation_type has a value.*'cubic'"),
    ("EulerDiscreteScheduler", 5, {"final_sigmas_type": "one"}, "final_sigmas_type has a value"),
    ("EulerDiscreteScheduler", 5, {"timestep_type": "whole"}, "timestep_type has a value"),
    ("EulerDiscreteScheduler", 5, {"sigmas": [3.0, 1.0]}, "sigmas must be a row.*6 numbers"),
    ("EulerDiscreteScheduler", 2, {"sigmas": [3.0, 5.0, 1.0]}, "sigmas must fall"),
    ("LMSDiscreteScheduler", 5, {"beta_schedule": "exp"}, "beta_schedule has a value.*'exp'"),
    ("LMSDiscreteScheduler", 5, {"rescale_betas_zero_snr": True}, "no key of this name"),
    ("DPMSolverMultistepScheduler", 1000, {}, "more steps than 'linspace' has times.*1 to 999"),
    ("DPMSolverMultistepScheduler", 5, {"mu": 1.0}, "mu is read with use_dynamic_shifting only"),
    ("DPMSolverMultistepScheduler", 5, {"use_flow_sigmas": True, "flow_shift": 0.0}, "flow_shift must be positive"),
    ("DPMSolverMultistepScheduler", 5, {"use_flow_sigmas": True, "use_karras_sigmas": True}, "no schedule of a flow"),
    (
        "DPMSolverMultistepInverseScheduler",
        5,
        {"use_flow_sigmas": True, "use_beta_sigmas": True},
        "schedule of a flow",
    ),
    ("UniPCMultistepScheduler", 5, {"use_flow_sigmas": True, "use_beta_sigmas": True}, "no schedule of a flow"),
    ("UniPCMultistepScheduler", 5, {"shift_terminal": 0.1}, "shift_terminal is read with use_flow_sigmas only"),
    (
        "UniPCMultistepScheduler",
        5,
        {"use_flow_sigmas": True, "use_dynamic_shifting": True},
        "needs the shift.*mu = None",
    ),
    ("FlowMatchEulerDiscreteScheduler", 5, {"use_dynamic_shifting": True}, "needs the shift of this resolution"),
    ("SASolverScheduler", 5, {"lambda_min_clipped": math.nan}, "lambda_min_clipped leaves no time.*nan.*below 4.6"),
    ("EDMEulerScheduler", 5, {"sigma_max": 1e300}, "sigma_max must be positive.*1e"),
    (
        "FlowMatchEulerDiscreteScheduler",
        5,
        {"shift_terminal": -0.3},
        "shift_terminal cannot.*= -0.3.*from 0 to below",
    ),
    ("FlowMatchEulerDiscreteScheduler", 1, {"shift_terminal": 0.1}, "cannot be reached from a single sigma"),
    ("FlowMatchEulerDiscreteScheduler", 2, {"sigmas": [1.5, 0.5]}, "sigmas of a flow lie above 0"),
    ("UniPCMultistepScheduler", 2, {"use_flow_sigmas": True, "sigmas": [0.5, 0.0]}, "sigmas of a flow lie above 0"),
    ("FlowMatchEulerDiscreteScheduler", 5, {"shift": -1.0}, "shift must be positive"),
    ("FlowMatchEulerDiscreteScheduler", 5, {"mu": 1.0}, "mu is read with use_dynamic_shifting only"),
    ("EDMEulerScheduler", 5, {"sigma_min": 90.0}, "sigma_min must lie below sigma_max"),
    ("EDMEulerScheduler", 5, {"sigma_schedule": "linear"}, "sigma_schedule has a value"),
    ("PNDMScheduler", 3, {}, "the Runge-Kutta start takes four times.*skip_prk_steps"),
    ("IPNDMScheduler", 3, {"trained_betas": [0.5, 0.1]}, "one more than steps.*4 numbers"),
    ("LCMScheduler", 51, {}, "more steps than original_inference_steps x strength.*1 to 50"),
    ("LCMScheduler", 5, {"strength": 1.5}, "strength is out of range"),
    ("TCDScheduler", 5, {"original_inference_steps": 2000}, "original_inference_steps is out of range"),
    ("DDIMInverseScheduler", 5, {"timestep_spacing": "linspace"}, "timestep_spacing has a value"),
]


@pytest.mark.parametrize(("name", "steps", "keys", "text"), REFUSED)
def test_refused(name: str, steps: int, keys: Config, text: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){text}"):
        ours({"_class_name": name, **keys}, steps)
