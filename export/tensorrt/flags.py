"""What the builder is told beside shapes: trtexec's flags, and what of them each TensorRT can honour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dpmrt.engines.built import Flags
from dpmrt.engines.built.schema import Compatibility
from dpmrt.errors import OptionError
from dpmrt.runtime.tensorrt_library import TensorRT

#: trtexec's name of a memory pool, and TensorRT's; those of the DLA are left out, since no engine here uses one
POOLS = {"workspace": "WORKSPACE", "tacticSharedMem": "TACTIC_SHARED_MEMORY"}
LEVELS: dict[str, Compatibility] = {
    "none": "none",
    "ampere+": "ampere_plus",
    "samecomputecapability": "same_compute_capability",
}
MAX_LEVEL = 5
_UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Refusal(NamedTuple):
    """A flag that cannot be honoured, why, and what to do instead."""

    flag: str
    why: str
    fix: str


def parse_pools(texts: Iterable[str]) -> dict[str, int]:
    """Return bytes by pool from `workspace:1024` (MiB, as trtexec reads it) or `workspace:2G`.

    >>> parse_pools(["workspace:1.5", "tacticSharedMem:48K"])
    {'workspace': 1572864, 'tacticSharedMem': 49152}
    """
    pools: dict[str, int] = {}
    for part in (part for text in texts for part in text.split(",")):
        name, _, size = part.strip().partition(":")
        if name not in POOLS or name in pools:
            raise OptionError(
                "--memPoolSize names a pool twice" if name in pools else "--memPoolSize names no memory pool",
                got=part,
                expected=", ".join(POOLS) + ", each once",
                fix="--memPoolSize=workspace:1024",
            )
        unit = size[-1:].upper()
        number = size[:-1] if unit in _UNITS else size
        try:
            count = float(number) * _UNITS.get(unit, 1 << 20)
            pools[name] = int(count)
        except (ValueError, OverflowError):
            count = 0
        if not 1 <= count < 1 << 63:
            raise OptionError(
                "--memPoolSize is no size",
                got=part,
                expected="POOL:MiB, or with a unit: 512K, 300M, 2G",
                fix=f"--memPoolSize={name}:1024",
            )
    return pools


def parse_level(text: str) -> Compatibility:
    """Return the hardware compatibility that trtexec's word stands for.

    >>> parse_level("ampere+")
    'ampere_plus'
    """
    level = LEVELS.get(text.lower().replace("_plus", "+").replace("_", ""))
    if level is None:
        raise OptionError(
            "unknown --hardwareCompatibilityLevel",
            got=text,
            expected=", ".join(LEVELS),
            fix="--hardwareCompatibilityLevel=ampere+",
        )
    return level


def check_flags(flags: Flags, trt: TensorRT, *, gpu: bool, timing_cache: bool = False) -> None:
    """Raise OptionError, with the reasons, for flags that this TensorRT cannot honour on this machine."""
    level = flags.optimization_level
    if level is not None and not 0 <= level <= MAX_LEVEL:
        # TensorRT-RTX takes any number without a word, so that it has to be refused here.
        raise OptionError(
            "--builderOptimizationLevel is out of range",
            got=level,
            expected=f"0 to {MAX_LEVEL}",
            fix="--builderOptimizationLevel=3",
        )
    refused = list(_refused(flags, trt, gpu, timing_cache))
    if refused:
        raise OptionError(
            f"{trt.library} cannot honour " + " and ".join(refusal.flag for refusal in refused),
            got="\n".join(f"{refusal.flag}: {refusal.why}" for refusal in refused),
            expected="flags of this TensorRT on this machine",
            fix="; ".join(dict.fromkeys(refusal.fix for refusal in refused)),
        )


def _refused(flags: Flags, trt: TensorRT, gpu: bool, timing_cache: bool) -> Iterator[Refusal]:
    rtx = trt.flavour == "tensorrt_rtx"
    known = trt.module.BuilderFlag.__members__
    for wanted, flag, name in (
        (flags.refit, "--refit", "REFIT"),
        (flags.strip_weights, "--stripWeights", "STRIP_PLAN"),
    ):
        if wanted and rtx and not gpu:
            yield Refusal(
                flag, "its compiler asks the CUDA driver, and there is no GPU", "build where there is a GPU"
            )
        elif wanted and name not in known:
            yield Refusal(flag, f"it has no builder flag {name}", "leave it out")
    if flags.weight_streaming and "WEIGHT_STREAMING" not in known:
        yield Refusal("--weightStreaming", "it has no builder flag WEIGHT_STREAMING", "leave it out")
    if flags.version_compatible and rtx:
        why = "it would need a lean runtime, which TensorRT-RTX does not ship"
        yield Refusal("--versionCompatible", why, "build again for each version, or use --flavour tensorrt")
    if flags.hardware_compatibility != "none" and rtx:
        why = "the library ignores it with a warning"
        yield Refusal("--hardwareCompatibilityLevel", why, "--target portable, or --target sm86,sm89,…")
    elif flags.hardware_compatibility.upper() not in trt.module.HardwareCompatibilityLevel.__members__:
        why = f"it does not know the level {flags.hardware_compatibility}"
        yield Refusal("--hardwareCompatibilityLevel", why, "--hardwareCompatibilityLevel=ampere+")
    if timing_cache and rtx:
        yield Refusal("--timingCacheFile", "nothing is timed at build, so that a cache stays empty", "leave it out")
