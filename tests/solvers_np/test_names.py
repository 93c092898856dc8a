from __future__ import annotations

import pytest

from dpmrt.errors import OptionError
from dpmrt.solvers_np import GRIDS, SOLVERS, compile_plan, sampler_called
from dpmrt.solvers_np.names import ENDINGS, SAMPLERS
from dpmrt.solvers_np.options import accepted

#: the menu of the interfaces that k-diffusion's users know, and its functions
KNOWN = {
    "DPM++ 2M Karras": ("dpmsolver++", "karras"),
    "DPM++ 2M SDE Exponential": ("sde-dpmsolver++", "exponential"),
    "DPM++ 3M SDE Karras": ("sde-dpmsolver++", "karras"),
    "DPM++ 2S a Karras": ("dpmsolver++2s-ancestral", "karras"),
    "DPM++ SDE Karras": ("dpmsolver++sde", "karras"),
    "DPM2 a": ("kdpm2-ancestral", None),
    "Euler a": ("euler-ancestral", None),
    "LMS Karras": ("lms", "karras"),
    "UniPC": ("unipc", None),
    "PLMS": ("pndm", None),
    "sample_dpmpp_2m": ("dpmsolver++", None),
    "sample_dpmpp_2m_sde": ("sde-dpmsolver++", None),
    "sample_dpm_2_ancestral": ("kdpm2-ancestral", None),
    "k_euler_ancestral": ("euler-ancestral", None),
    "k-heun": ("heun", None),
    "dpm++ 2m  KARRAS": ("dpmsolver++", "karras"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_name(name: str) -> None:
    found = sampler_called(name)
    assert found is not None
    assert (found.solver, found.grid) == KNOWN[name]
    plan = compile_plan(name, "scaled_linear", 10)
    assert plan.meta["solver"] == found.solver
    assert plan.meta["grid"] == (found.grid or "trailing")


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_name_has_a_solver_that_takes_its_options(name: str) -> None:
    solver, options = SAMPLERS[name]
    assert set(options) <= set(accepted(SOLVERS[solver].make))
    assert compile_plan(name, "scaled_linear", 12).calls >= 12


def test_every_ending_has_a_grid_that_takes_its_options() -> None:
    for grid, options in ENDINGS.values():
        assert set(options) <= set(accepted(GRIDS[grid]))


def test_a_name_is_the_solver_and_the_grid_it_stands_for() -> None:
    named = compile_plan("DPM++ 2M Karras", "scaled_linear", 20)
    plain = compile_plan("dpmsolver++", "scaled_linear", 20, grid="karras", order=2, lower_order_final=False)
    assert named.digest() == plain.digest()


def test_what_is_given_goes_before_what_the_name_says() -> None:
    plan = compile_plan("DPM++ 2M Karras", "scaled_linear", 20, grid="trailing", order=3)
    plain = compile_plan("dpmsolver++", "scaled_linear", 20, grid="trailing", order=3, lower_order_final=False)
    assert plan.digest() == plain.digest()
    assert (
        compile_plan("Euler Beta", "linear", 5).digest()
        != compile_plan("Euler Beta", "linear", 5, over="sigma").digest()
    )


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("DPM++ 2M Kerras", "DPM++ 2M Karras"),
        ("Euler b", "Euler"),
        ("dpm-solver++", "dpmsolver++"),
        ("unipcc", "unipc"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    if sampler_called(name) is not None:
        pytest.fail("the name is known")
    with pytest.raises(OptionError, match="unknown solver") as caught:
        compile_plan(name, "linear", 10)
    assert near.lower() in str(caught.value.fix).lower()
