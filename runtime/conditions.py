"""What a request conditions the network on: any named arrays, held against what the network takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import NEGATIVE, Network, TensorSpec
from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.guidance import Scales, check_guidance
from dpmrt.runtime.guidance.asked import Asked
from dpmrt.runtime.labels import check_labels
from dpmrt.runtime.request import Labels, check_array
from dpmrt.runtime.sizes import UNNAMED, Sizes, show

Array = NDArray[Any]

LABELS, TEXT = "class_labels", "encoder_hidden_states"
#: the channels of the input behind those of the state
EXTRA = "extra_channels"
#: of up to so many axes, a float condition may be given in whole numbers, as sizes and rates are
_VECTOR = 2


@dataclass(frozen=True)
class Conditions:
    """What the network is conditioned on, role by role, and without it; `guided` when a doubled batch needs both."""

    values: Mapping[str, Array]
    null: Mapping[str, Array]
    scales: Scales
    guided: bool = False

    @property
    def scale(self) -> float:
        """Return the scale of guidance of the first sample, before any interval or schedule."""
        return float(self.scales.base[0])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one sample's condition, role by role."""
        return {role: array.shape[1:] for role, array in self.values.items()}


def check_conditions(
    bundle: OpenBundle,
    batch: int,
    shape: tuple[int, ...],
    *,
    label: Labels = None,
    guidance: Asked = None,
    conditions: Mapping[str, Any] | None = None,
    negative: Mapping[str, Any] | None = None,
    encoder_hidden_states: Array | None = None,
    negative_hidden_states: Array | None = None,
) -> Conditions:
    """Settle conditions and scales of guidance for one request of samples of this shape."""
    network = bundle.manifest.unet
    given, away = _mapping("conditions", conditions), _mapping("negative", negative)
    taken = condition_specs(network, shape)
    labels = _labels(taken)
    if label is not None:
        if labels is None:
            raise OptionError(
                "the network takes no class labels",
                got=f"label={label!r}",
                expected="label=None",
                fix="leave out the label",
            )
        _add(given, LABELS, label, "label=... and conditions")
    texts = (encoder_hidden_states, negative_hidden_states)
    if any(text is not None for text in texts) and TEXT not in taken:
        raise OptionError("the network takes no text", expected="encoder_hidden_states=None", fix="leave it out")
    _add(given, TEXT, encoder_hidden_states, "encoder_hidden_states=... and conditions")
    _add(away, TEXT, negative_hidden_states, "negative_hidden_states=... and negative")
    opposed = opposed_specs(network, taken)
    _check_known("conditions", given, taken)
    _check_known("negative", away, opposed)
    labelled = labels is not None and LABELS in given
    scales = check_guidance(bundle.manifest, guidance, batch, labelled=labelled, negative=bool(away))
    checker = _Checker(bundle, batch, network, shape)
    values = {role: checker.value(spec, given.get(role)) for role, spec in taken.items()}
    if network.folded_guidance:
        for role, spec in opposed.items():
            values[NEGATIVE + role] = checker.folded(spec, away.get(role), values[role], scales)
        return Conditions(values, {}, scales)
    null = {role: checker.null(spec, away.get(role), values[role]) for role, spec in taken.items()}
    if scales.constant == 0.0:
        values, scales = null, Scales.same(batch, 1.0)
    return Conditions(values, null, scales, guided=scales.constant != 1.0)


class _Checker:
    """Holds the arrays of one request against what the network takes, and against each other."""

    def __init__(self, bundle: OpenBundle, batch: int, network: Network, shape: tuple[int, ...]) -> None:
        guidance = bundle.manifest.guidance
        self._batch = batch
        self._classes = bundle.classes
        self._null_label = None if guidance is None else guidance.null_label
        self._sizes = Sizes(network.axes)
        self._sizes.take("the sample", network.sample_shape, shape)

    def value(self, spec: TensorSpec, value: Any) -> Array:
        """Return a condition for the whole batch."""
        if _is_label(spec):
            return self._label(value)
        if value is None:
            raise self._missing(spec)
        return self._array(f"the condition {spec.role}", spec, value)

    def null(self, spec: TensorSpec, value: Any, given: Array) -> Array:
        """Return what the second half of a doubled batch gets: the same as the first where nothing is said."""
        if _is_label(spec):
            return given if value is None and self._null_label is None else self._label(value)
        if value is None:
            return given
        array = self._array(f"the negative {spec.role}", spec, value)
        if array.shape != given.shape:
            raise ArrayError(
                f"the negative {spec.role} has another shape than the condition",
                got=show(array.shape),
                expected=show(given.shape),
            )
        return array

    def folded(self, spec: TensorSpec, value: Any, given: Array, scales: Scales) -> Array:
        """Return what an input of the graph gets that guidance moves away from."""
        role = spec.role.removeprefix(NEGATIVE)
        if _is_label(spec) and (value is not None or self._null_label is not None):
            return self._label(value)
        if value is None and scales.constant == 1.0:
            return given
        if value is None:
            raise OptionError(
                f"guidance moves away from a negative {role}, which is missing",
                got=("guidance" if scales.constant is None else f"guidance={scales.constant:g}")
                + f", and no negative {role}",
                expected=self._expected(spec),
                fix=f"negative={{{role!r}: ...}} (--negative {role}=FILE.npy), or guidance=1",
            )
        return self._array(f"the negative {role}", spec, value)

    def _label(self, value: Any) -> Array:
        return check_labels(self._batch, value, classes=self._classes, null_label=self._null_label)

    def _array(self, name: str, spec: TensorSpec, value: Any) -> Array:
        array = check_array(name, value)
        if not spec.shape and array.size == 1:
            array = array.reshape(())
        kinds = ("f" if len(spec.shape) > _VECTOR else "fiu") if "float" in spec.dtype else "iu"
        leads = array.ndim == len(spec.shape) and array.shape[:1] in ((), (1,), (self._batch,))
        if not leads or array.dtype.kind not in kinds:
            got = f"{array.dtype}{show(array.shape)}"
            raise ArrayError(f"{name} does not fit the network", got=got, expected=self._expected(spec))
        self._sizes.take(name, (*array.shape[:1], *spec.shape[1:]), array.shape)
        with np.errstate(over="ignore"):
            cast = array.astype(spec.dtype)
        if not np.isfinite(array).all():
            raise ArrayError(f"{name} holds NaN or infinity", expected="finite numbers")
        if not np.isfinite(cast).all() or ("int" in spec.dtype and (cast != array).any()):
            raise ArrayError(
                f"{name} holds a number that is too large for the network",
                got=f"{array.min():g} to {array.max():g}",
                expected=f"numbers that {spec.dtype} can hold",
            )
        return np.broadcast_to(cast, (self._batch, *cast.shape[1:])) if spec.shape else cast

    def _missing(self, spec: TensorSpec) -> OptionError:
        if spec.role == TEXT:
            return OptionError(
                "the network is conditioned on text, whose encoding is missing",
                got="encoder_hidden_states=None",
                expected=self._expected(spec),
                fix="pass the text encoder's last hidden state: sample(encoder_hidden_states=...) from Python, "
                f"--condition {TEXT}=FILE.npy from the command line",
            )
        return OptionError(
            f"the network is conditioned on {spec.role}, which is missing",
            got=f"no condition {spec.role}",
            expected=self._expected(spec),
            fix=f"conditions={{{spec.role!r}: ...}}, or --condition {spec.role}=FILE.npy",
        )

    def _expected(self, spec: TensorSpec) -> str:
        return f"{spec.dtype}{show((self._batch, *spec.shape[1:]) if spec.shape else ())}"


def extra_spec(network: Network, shape: tuple[int, ...]) -> TensorSpec:
    """Return what the extra channels are: like the state, which has this shape, with as many channels as are left."""
    sample = network.input("sample")
    assert sample is not None
    named = [
        size if isinstance(axis, int) or axis in UNNAMED else axis for axis, size in zip(network.sample_shape, shape)
    ]
    named[network.channel_axis - 1] = network.extra_channels
    return TensorSpec(EXTRA, sample.name, sample.dtype, (sample.shape[0], *named))


def condition_specs(network: Network, shape: tuple[int, ...]) -> dict[str, TensorSpec]:
    """Return what `conditions` may name, for samples of this shape."""
    folded = network.folded_guidance
    taken = {spec.role: spec for spec in network.conditions if not (folded and spec.role.startswith(NEGATIVE))}
    if network.extra_channels:
        taken[EXTRA] = extra_spec(network, shape)
    return taken


def opposed_specs(network: Network, taken: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Return what `negative` may name, with the specification that its array has to meet."""
    if not network.folded_guidance:
        return {role: spec for role, spec in taken.items() if spec.shape}
    pairs = {role: network.input(NEGATIVE + role) for role in taken}
    return {role: spec for role, spec in pairs.items() if spec is not None}


def _labels(taken: Mapping[str, TensorSpec]) -> TensorSpec | None:
    spec = taken.get(LABELS)
    return spec if spec is not None and _is_label(spec) else None


def _is_label(spec: TensorSpec) -> bool:
    return spec.role.removeprefix(NEGATIVE) == LABELS and "int" in spec.dtype and len(spec.shape) == 1


def _mapping(name: str, given: object) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OptionError(
            f"{name} is no mapping",
            got=type(given).__name__,
            expected="the arrays by their names",
            fix=f"{name}={{'text_embeds': ...}}",
        )
    return {role: value for role, value in given.items() if value is not None}


def _add(given: dict[str, Any], role: str, value: Any, both: str) -> None:
    if value is None:
        return
    if role in given:
        raise OptionError(f"{role} is given twice", got=f"{both}[{role!r}]", expected="one of them")
    given[role] = value


def _check_known(name: str, given: Mapping[str, Any], known: Mapping[str, TensorSpec]) -> None:
    for role in given:
        if role not in known:
            raise OptionError(
                f"{name} has a name that the network does not know",
                got=repr(role),
                expected=", ".join(known) or "none, as the network takes no conditions",
                fix="leave it out; `dpmrt inspect BUNDLE` lists what the network takes",
            )
