"""The names that users of k-diffusion and its interfaces know: "DPM++ 2M Karras" is a solver, options and a grid."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dpmrt.errors import OptionError


class Sampler(NamedTuple):
    """What a name stands for. No grid: the name says nothing about it."""

    solver: str
    options: Mapping[str, Any]
    grid: str | None = None
    grid_options: Mapping[str, Any] = MappingProxyType({})


# k-diffusion lowers the order only for the step onto zero noise, whatever the number of steps.
_FULL = {"lower_order_final": False}

#: the part of a name before its grid
SAMPLERS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "Euler": ("euler", {}),
        "Euler a": ("euler-ancestral", {}),
        "Euler ancestral": ("euler-ancestral", {}),
        "Heun": ("heun", {}),
        "LMS": ("lms", {}),
        "DPM2": ("kdpm2", {}),
        "DPM2 a": ("kdpm2-ancestral", {}),
        "DPM2 ancestral": ("kdpm2-ancestral", {}),
        "DPM fast": ("dpmsolver-singlestep", {"order": 3}),
        "DPM++ 2S": ("dpmsolver++singlestep", {"order": 2}),
        "DPM++ 3S": ("dpmsolver++singlestep", {"order": 3}),
        "DPM++ 2S a": ("dpmsolver++2s-ancestral", {}),
        "DPM++ 2S ancestral": ("dpmsolver++2s-ancestral", {}),
        "DPM++ 2M": ("dpmsolver++", {"order": 2, **_FULL}),
        "DPM++ 3M": ("dpmsolver++", {"order": 3, **_FULL}),
        "DPM++ SDE": ("dpmsolver++sde", {}),
        "DPM++ 2M SDE": ("sde-dpmsolver++", {"order": 2, "solver_type": "midpoint", **_FULL}),
        "DPM++ 2M SDE Heun": ("sde-dpmsolver++", {"order": 2, "solver_type": "heun", **_FULL}),
        "DPM++ 3M SDE": ("sde-dpmsolver++", {"order": 3, "solver_type": "heun", **_FULL}),
        "DDPM": ("ddpm", {}),
        "DDIM": ("ddim", {}),
        "PLMS": ("pndm", {"skip_prk_steps": True}),
        "iPNDM": ("ipndm", {}),
        "DEIS": ("deis", {}),
        "UniPC": ("unipc", {}),
        "LCM": ("lcm", {}),
        "TCD": ("tcd", {}),
    }
)

#: the end of a name
ENDINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "Karras": ("karras", {}),
        "Exponential": ("exponential", {}),
        "Polyexponential": ("polyexponential", {}),
        "Beta": ("beta", {"over": "time"}),
        "Lu": ("lu", {}),
        "AYS": ("ays", {}),
        "Align Your Steps": ("ays", {}),
        "Normal": ("linspace", {}),
        "DDIM Uniform": ("leading", {}),
        "SGM Uniform": ("trailing", {}),
        "Trailing": ("trailing", {}),
    }
)


def _plain(name: str) -> str:
    """Return a name without what people spell in different ways."""
    text = re.sub(r"^(sample|k)[ _-]", "", name.strip().lower())
    text = re.sub(r"(?<=dpm)pp", "++", text).replace("dpm-solver", "dpm").replace("dpmsolver", "dpm")
    return re.sub(r"[ _-]+", "", text)


_SAMPLERS = {_plain(name): found for name, found in SAMPLERS.items()}
_ENDINGS = {"": (None, {}), **{_plain(name): found for name, found in ENDINGS.items()}}
_KNOWN = {
    start + end: Sampler(solver, options, grid, grid_options)
    for start, (solver, options) in _SAMPLERS.items()
    for end, (grid, grid_options) in _ENDINGS.items()
}


def sampler_called(name: str) -> Sampler | None:
    """Return what a known name stands for, however it is spelled, or None.

    >>> sampler_called("DPM++ 2M Karras")[:3]
    ('dpmsolver++', {'order': 2, 'lower_order_final': False}, 'karras')
    >>> sampler_called("sample_dpmpp_2m_sde").solver
    'sde-dpmsolver++'
    """
    return _KNOWN.get(_plain(name))


def unknown_sampler(name: object, solvers: Mapping[str, object]) -> OptionError:
    """Return the error for a name that is neither a solver's nor known."""
    spelled = {**{_plain(n): n for n in SAMPLERS}, **{_plain(n): n for n in solvers}}
    spelled |= {_plain(f"{a} {b}"): f"{a} {b}" for a in SAMPLERS for b in ENDINGS}
    near = difflib.get_close_matches(_plain(str(name)), spelled, n=1)
    return OptionError(
        "unknown solver",
        got=repr(name),
        expected=f"one of {', '.join(solvers)}, or a name such as 'DPM++ 2M Karras' or 'Euler a'",
        fix=f"did you mean {spelled[near[0]]!r}?" if near else None,
    )
