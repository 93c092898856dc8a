"""What a built engine's sidecar says: everything that decides whether the plan beside it may be loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec

from dpmrt.engines.schema import FileRecord, PrecisionName

ENGINE_FORMAT = "dpmrt-engine"
ENGINE_VERSION = 1
#: raised when the builder begins to drive TensorRT differently, so that older engines are built anew
RECIPE = 1

Flavour = Literal["tensorrt", "tensorrt_rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
TITLES: dict[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
#: the oldest compute capability of a portable engine: on 7.5 TensorRT-RTX cannot multiply matrices in fp32
OLDEST_PORTABLE = "8.0"

NetworkName = Literal["unet", "classifier"]
Compatibility = Literal["none", "ampere_plus", "same_compute_capability"]

Shape = tuple[int, ...]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
#: as NVIDIA writes it: major, point, minor
Capability = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.[0-9]+$")]
KEY_PATTERN = "^[0-9a-f]{16}$"
Key = Annotated[str, msgspec.Meta(pattern=KEY_PATTERN)]


class Library(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which TensorRT, in which version; an engine loads in no other, unless it was built for that."""

    flavour: Flavour
    version: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the version as numbers, for comparing.

        >>> Library("tensorrt", "10.3.0").numbers
        (10, 3, 0)
        """
        return tuple(int(part) if part.isdigit() else 0 for part in self.version.split("."))

    def __str__(self) -> str:
        return f"{TITLES[self.flavour]} {self.version}"


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shapes of one input that a profile covers, and the one that it is tuned for."""

    min: Shape
    opt: Shape
    max: Shape

    def takes(self, shape: Sequence[int]) -> bool:
        """Return whether the shape lies between the bounds.

        >>> Range((1, 4), (2, 4), (8, 4)).takes((3, 4))
        True
        """
        same = len(shape) == len(self.min)
        return same and all(low <= size <= high for low, size, high in zip(self.min, shape, self.max))

    def __str__(self) -> str:
        return ":".join("x".join(str(size) for size in shape) or "scalar" for shape in (self.min, self.opt, self.max))


#: the inputs with a free axis, by the graph's name; an input that is not listed has one shape only
Profile: TypeAlias = dict[str, Range]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an engine runs: on the GPU that it was tuned on, or on every GPU of the listed compute capabilities.

    A portable target without `capabilities` is for all from OLDEST_PORTABLE: TensorRT-RTX's own choice without a GPU.
    """

    kind: Literal["device", "portable"]
    platform: str
    gpu: str | None = None
    compute_capability: Capability | None = None
    capabilities: tuple[Capability, ...] = ()

    def __str__(self) -> str:
        if self.kind == "device":
            return f"device: {self.gpu} ({self.compute_capability}), {self.platform}"
        return f"portable: {', '.join(self.capabilities) or f'{OLDEST_PORTABLE} or newer'}, {self.platform}"


class Flags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the builder was told beside shapes; None or empty is the library's own choice. Sizes are in bytes."""

    optimization_level: int | None = None
    memory_pools: dict[str, int] = {}
    tf32: bool = True
    refit: bool = False
    strip_weights: bool = False
    weight_streaming: bool = False
    version_compatible: bool = False
    hardware_compatibility: Compatibility = "none"


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides what is in an engine. `source` is the graph and its weights, each with its SHA-256."""

    network: NetworkName
    source: dict[str, Digest]
    precision: PrecisionName
    library: Library
    target: Target
    profiles: tuple[Profile, ...] = ()
    flags: Flags = Flags()
    recipe: int = RECIPE

    def key(self) -> str:
        """Return the name of the engine: the first 16 hexadecimal digits of SHA-256 over the request.

        >>> here = Target("portable", "linux-x86_64")
        >>> Request("unet", {}, "fp32", Library("tensorrt_rtx", "1.7.1"), here).key()
        '996a2fb76e8552a8'
        """
        canonical = json.dumps(msgspec.to_builtins(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class EngineTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of an engine, by the graph's name; a string is a free axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class EngineManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `<key>.json`. `facts` says how the build went, and decides nothing."""

    format: Literal["dpmrt-engine"]
    version: int
    key: Key
    request: Request
    plan: FileRecord
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    facts: Mapping[str, str | int | float] = {}
