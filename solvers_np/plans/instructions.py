"""The named operations of a plan that are not linear, as data."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from dpmrt.errors import PlanError


@dataclasses.dataclass(frozen=True)
class Clip:
    """Limit the quantity, a prediction of x0, to [-limit, limit]."""

    limit: float


@dataclasses.dataclass(frozen=True)
class DynamicThreshold:
    """Limit each sample of x0 to its own percentile s, at least 1 and at most `limit`, and divide by s.

    Saharia et al. 2022 (Imagen), section 2.3.
    """

    ratio: float
    limit: float


@dataclasses.dataclass(frozen=True)
class LearnedRange:
    """Scale the noise to a variance between two, in their logarithms: the output's second part, -1 to 1, says where.

    Nichol and Dhariwal 2021, eq. 15.
    """

    log_small: float
    log_large: float


@dataclasses.dataclass(frozen=True)
class LearnedVariance:
    """Scale the noise to the variance that is the output's second part."""


@dataclasses.dataclass(frozen=True)
class Discard:
    """Draw noise that the row does not use, as a sampler does that shares one generator and draws in every step."""


@dataclasses.dataclass(frozen=True)
class Langevin:
    """Set the step of a Langevin corrector by norms: with h = snr |z| / |q|, q becomes h^2 q and the noise z h z.

    q is slot[quantity], a score. Norms are Euclidean over a sample; of a batch, their means are taken, unless
    `per_sample`. The row's weights hold the rest: x' = x + 2 alpha q + 2 sqrt(alpha) z is one step of the corrector
    of Song et al. 2021 (arXiv 2011.13456), x' = x + step q + sqrt(2 step) z with step = 2 alpha h^2.
    """

    snr: float
    per_sample: bool = False


Instruction = Clip | DynamicThreshold
NoiseInstruction = LearnedRange | LearnedVariance | Discard | Langevin
INSTRUCTIONS: Mapping[str, type[Instruction | NoiseInstruction]] = {
    "clip": Clip,
    "dynamic_threshold": DynamicThreshold,
    "learned_range": LearnedRange,
    "learned_variance": LearnedVariance,
    "discard": Discard,
    "langevin": Langevin,
}


#: the least and the most of the numbers that arrays are divided by, or counted with
BOUNDS: Mapping[type[Instruction | NoiseInstruction], Mapping[str, tuple[float, float]]] = {
    Clip: {"limit": (0.0, math.inf)},
    DynamicThreshold: {"ratio": (0.0, 1.0), "limit": (1.0, math.inf)},
    Langevin: {"snr": (0.0, math.inf)},
}


def check_bounds(instructions: Iterable[Instruction | NoiseInstruction]) -> None:
    """Refuse instructions with numbers that they cannot work with."""
    names = {kind: name for name, kind in INSTRUCTIONS.items()}
    for instruction in instructions:
        for name, (least, most) in BOUNDS.get(type(instruction), {}).items():
            value = getattr(instruction, name)
            if not least <= value <= most:
                raise PlanError(
                    "an instruction has a number out of range",
                    got=f"{names[type(instruction)]}: {name} = {value:g}",
                    expected=f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:g}",
                )


def read_instructions(header: Mapping[str, Any], source: str) -> tuple[Instruction | NoiseInstruction, ...]:
    """Return the instructions that a step file's header lists."""
    made: list[Instruction | NoiseInstruction] = []
    listed = header.get("instructions", [])
    for entry in listed if isinstance(listed, list) else [listed]:
        fields = dict(entry) if isinstance(entry, dict) else {}
        kind = INSTRUCTIONS.get(str(fields.pop("name", "")))
        expected = {field.name for field in dataclasses.fields(kind)} if kind else set()
        if (
            kind is None
            or set(fields) != expected
            or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in fields.values())
        ):
            raise PlanError(
                f"{source} holds an instruction that this version does not know",
                got=json.dumps(entry),
                expected="one of " + ", ".join(INSTRUCTIONS),
                fix="update dpmrt, or compile the plan again",
            )
        made.append(kind(**fields))
    return tuple(made)
