"""What `dpmrt.json` can say: its fields, as types."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

#: the roles that the sampler itself knows; any other input is a condition, named by its role
ROLES = ("sample", "timestep", "out_sample", "guidance_scale", "class_labels", "encoder_hidden_states")
#: what stands before the role of a condition that guidance, folded into the graph, moves away from
NEGATIVE = "negative_"

Role = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]*$")]
DType = Literal["float32", "float16", "bfloat16", "int64", "int32"]
PrecisionName = Literal["fp32", "fp16", "bf16"]
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)
Size = Annotated[int, msgspec.Meta(ge=1)]

MAX_STEPS = 10_000
MAX_LABEL = 2**31 - 1


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output of a graph: what it is for, its name there, and its shape (a string is a free axis)."""

    role: Role
    name: str
    dtype: DType
    shape: tuple[Size | str, ...]


class Axis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What sizes a free axis takes: from `min` to `max`, in multiples, and the one it is mostly used with."""

    opt: Size
    min: Size = 1
    max: Size | None = None
    multiple: Size = 1

    def takes(self, size: int) -> bool:
        """Return whether the axis can have this size."""
        return self.min <= size <= (self.max or size) and size % self.multiple == 0

    def __str__(self) -> str:
        bounds = f"{self.min} or more" if self.max is None else f"{self.min} to {self.max}"
        return bounds + (f", in multiples of {self.multiple}" if self.multiple > 1 else "")


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node of the graph that computes in fp32 because it was found to need it, and why."""

    node: str
    why: str


class Precision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In what the graph computes: nearly all of it in `kind`, the nodes of `pinned` and the sensitive ones in fp32.

    `emulated` is a second graph over the same weights that computes in fp32 and rounds every result as the first
    one does on hardware that has the type; it runs anywhere.
    """

    kind: PrecisionName = "fp32"
    pinned: tuple[Pin, ...] = ()
    emulated: str | None = None


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network as an ONNX file, with the tensors that it takes and gives.

    `axes` says what sizes the free axes of its tensors take, those of it that are limited or have a usual size.
    """

    path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    data: tuple[str, ...] = ()
    config: str | None = None
    axes: dict[str, Axis] = {}
    channel_axis: Size = 1
    precision: Precision = Precision()

    def input(self, role: str) -> TensorSpec | None:
        """Return the input that plays `role`, if the network has one."""
        return next((spec for spec in self.inputs if spec.role == role), None)

    @property
    def sample_shape(self) -> tuple[int | str, ...]:
        """Return the shape of one sample, without the batch axis: that of the state that sampling moves.

        The network may take more channels than that, which are a condition (`extra_channels`), and give more, which
        are a variance that it learned.
        """
        spec = self.input("sample")
        if spec is None:
            return ()
        shape = list(spec.shape)
        taken, given = shape[self.channel_axis], self._given_channels()
        if isinstance(taken, int) and isinstance(given, int) and given < taken:
            shape[self.channel_axis] = given
        return tuple(shape[1:])

    @property
    def extra_channels(self) -> int:
        """Return how many channels of the input are no part of the state, as inpainting's mask."""
        spec = self.input("sample")
        taken = spec.shape[self.channel_axis] if spec else None
        own = self.sample_shape[self.channel_axis - 1] if spec else None
        return taken - own if isinstance(taken, int) and isinstance(own, int) else 0

    @property
    def learned_channels(self) -> int:
        """Return how many channels of the output, behind those of the state, are a variance that was learned."""
        given = self._given_channels()
        own = self.sample_shape[self.channel_axis - 1] if self.input("sample") else None
        return given - own if isinstance(given, int) and isinstance(own, int) else 0

    @property
    def conditions(self) -> tuple[TensorSpec, ...]:
        """Return the inputs beside the state, the time and the guidance scale."""
        return tuple(spec for spec in self.inputs if spec.role not in ("sample", "timestep", "guidance_scale"))

    @property
    def folded_guidance(self) -> bool:
        """Return whether classifier-free guidance is a part of the graph, with its scale as an input."""
        return self.input("guidance_scale") is not None

    def _given_channels(self) -> int | str | None:
        out = next((spec for spec in self.outputs if spec.role == "out_sample"), None)
        return out.shape[self.channel_axis] if out and len(out.shape) > self.channel_axis else None


class Guidance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Classifier-free guidance by class label: the label that stands for "no class", and the usual scale."""

    kind: Literal["classifier_free"]
    classes: int
    null_label: int
    scale: float = 1.0


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the bundle is sampled when the caller does not say."""

    steps: int = 20
    solver: str | None = None
    options: dict[str, bool | int | float | str | None] = {}


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size and SHA-256 of one file of the bundle."""

    bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `dpmrt.json`. `eps_power` is the statistic of the analytic variance, where it was measured."""

    format: Literal["dpmrt-bundle"]
    version: int
    name: str
    unet: Network
    scheduler: str
    prediction: Literal["epsilon", "sample", "v_prediction", "flow", "score", "edm"]
    files: dict[str, FileRecord]
    guidance: Guidance | None = None
    data_range: tuple[float, float] = (-1.0, 1.0)
    defaults: Defaults = Defaults()
    provenance: dict[str, str | int | float] = {}
    classifier: Network | None = None
    eps_power: str | None = None
    vjp: Network | None = None
