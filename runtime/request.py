"""What a caller asks of a pipeline, checked before the network runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.solvers_np import NoiseSchedule, StepPlan

Labels: TypeAlias = "int | Sequence[int] | NDArray[Any] | None"

_MOST_BYTES = 1 << 40
_LAMBDA_SLACK = 0.05
_NEAR = 1e-3


@dataclass(frozen=True)
class Conditions:
    """What the network is conditioned on, role by role, and without it; `guided` when both are needed."""

    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    null: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    scale: float = 1.0
    guided: bool = False

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one sample's condition, role by role."""
        return {role: array.shape[1:] for role, array in self.values.items()}


def check_batch(batch: object, shape: tuple[int, ...] = ()) -> int:
    """Return the batch size, or say what was expected; the samples, of this shape, stay below a terabyte."""
    return _whole("batch", batch, 1, max(1, _MOST_BYTES // (4 * math.prod(shape))), fix="batch=1")


def check_array(name: str, value: object) -> NDArray[Any]:
    """Return what the caller gave as an array; raises ArrayError for what is none, as ragged lists."""
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ArrayError(f"{name} is no array", got=error, expected="an array") from None


def check_noise(plan: StepPlan, noise: object) -> None:
    """Refuse fresh noise for a plan that adds none; a recording of no draws holds none."""
    if noise is None or plan.stochastic or (isinstance(noise, np.ndarray) and len(np.atleast_1d(noise)) == 0):
        return
    raise OptionError(
        "noise is given, and the plan adds no noise",
        got=f"noise={type(noise).__name__}",
        expected="noise=None",
        fix="leave out noise, or choose a stochastic solver; x_T is the initial noise",
    )


def check_schedule(plan: StepPlan, schedule: NoiseSchedule, *, fix: str) -> None:
    """Refuse a plan whose times and noise levels are not those of the schedule.

    The level may be off by one training time, as some grids round their times; in continuous time by a thousandth.
    """
    rows = np.flatnonzero(plan.out >= 0)
    t, alpha, sigma = plan.t[rows], plan.alpha[rows], plan.sigma[rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.log(alpha) - np.log(sigma)
    first, last = schedule.t_range
    near = 1.0 if schedule.train_steps is not None else _NEAR * (last - first)
    rises = plan.end[1] * plan.start[0] > plan.end[0] * plan.start[1]
    # a step that encodes may ask the network at the time where it ends, and the first may start from data
    reached = np.append(first, t[:-1]) if rises else t
    top = schedule.lambda_(np.clip(reached - near, first, last)) + _LAMBDA_SLACK
    bottom = schedule.lambda_(np.clip(t + near, first, last)) - _LAMBDA_SLACK
    known = (t >= first) & (t <= last)
    data = (sigma == 0) & (t <= first + near)
    fits = known & (level >= bottom) & ((level <= top) | data)
    if fits.all():
        return
    k = int(np.flatnonzero(~fits)[0])
    where = f"row {rows[k]}, t = {t[k]:g}"
    raise OptionError(
        "the plan is for another noise schedule than the network's",
        got=f"{where}: log(alpha / sigma) = {level[k]:.4g}" if known[k] else where,
        expected=f"{bottom[k]:.4g} to {top[k]:.4g}" if known[k] else f"{first:g} to {last:g}",
        fix=fix,
    )


def check_conditions(
    bundle: OpenBundle,
    batch: int,
    *,
    label: Labels = None,
    guidance: float | None = None,
    hidden: NDArray[Any] | None = None,
    null_hidden: NDArray[Any] | None = None,
) -> Conditions:
    """Settle labels, text and guidance scale for one request."""
    network, setup = bundle.manifest.unet, bundle.manifest.guidance
    labelled, texted = network.input("class_labels"), network.input("encoder_hidden_states")
    if label is not None and labelled is None:
        raise OptionError(
            "the network takes no class labels",
            got=f"label={label!r}",
            expected="label=None",
            fix="leave out the label",
        )
    scale = _check_scale(bundle, guidance, label, null_hidden)
    values: dict[str, NDArray[Any]] = {}
    null: dict[str, NDArray[Any]] = {}
    if labelled is not None:
        values["class_labels"] = _check_labels(bundle, batch, label)
        spare = setup.null_label if setup is not None else 0
        null["class_labels"] = np.full(batch, spare, np.int64) if setup else values["class_labels"]
    if texted is not None:
        width = texted.shape[-1]
        values["encoder_hidden_states"] = _check_hidden("encoder_hidden_states", hidden, batch, width)
        other = hidden if null_hidden is None else null_hidden
        null["encoder_hidden_states"] = _check_hidden("negative_hidden_states", other, batch, width)
        got, expected = null["encoder_hidden_states"].shape, values["encoder_hidden_states"].shape
        if got != expected:
            raise ArrayError("negative_hidden_states has another shape than the text", got=got, expected=expected)
    elif hidden is not None or null_hidden is not None:
        raise OptionError("the network takes no text", expected="encoder_hidden_states=None", fix="leave it out")
    if scale == 0.0:
        values, scale = null, 1.0
    return Conditions(values, null, scale, guided=scale != 1.0)


def check_x_T(x_T: object, batch: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the initial noise, or say what is wrong with it."""
    x = check_array("the initial noise (x_T, --noise)", x_T)
    if x.dtype.kind != "f":
        raise ArrayError(
            "the initial noise (x_T, --noise) has the wrong dtype",
            got=x.dtype,
            expected="a floating-point dtype",
            fix="convert it to float32",
        )
    if x.shape != (batch, *shape):
        only_batch = x.shape[1:] == shape and len(x) > 0
        raise ArrayError(
            "the initial noise (x_T, --noise) has the wrong shape",
            got=x.shape,
            expected=(batch, *shape),
            fix=f"ask for a batch of {len(x)}" if only_batch else "draw it with dpmrt.solvers_np.randn",
        )
    bad = np.flatnonzero(~np.isfinite(x))
    if bad.size:
        index = tuple(int(i) for i in np.unravel_index(int(bad[0]), x.shape))
        raise ArrayError(
            "the initial noise (x_T, --noise) holds NaN or infinity",
            got=f"{x[index]} at {index}",
            expected="finite numbers",
        )
    return x


def _check_scale(bundle: OpenBundle, guidance: object, label: object, null_hidden: object) -> float:
    """Return the guidance scale that applies: 1 is no guidance."""
    setup = bundle.manifest.guidance
    if guidance is None:
        return float(setup.scale) if setup is not None and label is not None else 1.0
    if not _is_scale(guidance):
        raise OptionError(
            "guidance is not a scale", got=_brief(guidance), expected="a finite number", fix="guidance=2.0"
        )
    if setup is None and null_hidden is None:
        raise OptionError(
            "the network was not trained for guidance, or the bundle does not say so",
            got=f"guidance={guidance!r}",
            expected="guidance=None",
            fix="leave out guidance, or pick a bundle whose manifest has `guidance`",
        )
    if setup is not None and label is None and null_hidden is None:
        raise OptionError(
            "guidance has nothing to guide to without a label",
            got=f"guidance={guidance!r} and label=None",
            expected=f"a label from 0 to {setup.classes - 1}",
            fix="pass label=0, or leave out guidance",
        )
    return float(guidance)


def _is_scale(guidance: object) -> TypeGuard[float]:
    if isinstance(guidance, bool) or not isinstance(guidance, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(guidance)
    except OverflowError:
        return False


def _check_labels(bundle: OpenBundle, batch: int, label: Labels) -> NDArray[np.int64]:
    setup, classes = bundle.manifest.guidance, bundle.classes
    if label is None:
        if setup is None:
            raise OptionError(
                "the network needs a class label",
                got="label=None",
                expected=f"0 to {classes - 1}" if classes else "a class label",
                fix="label=0",
            )
        return np.full(batch, setup.null_label, np.int64)
    shape = check_array("label", label).shape
    many = len(shape) > 0
    labels = list(label) if many else [label]  # type: ignore[arg-type]
    if many and shape != (batch,):
        raise OptionError(
            "there must be one label for each sample",
            got=f"labels of shape {shape}",
            expected=f"{batch}, as batch={batch}",
            fix=f"ask for a batch of {len(labels)}, or give one label for all"
            if labels
            else "give one label for all",
        )
    also = None if setup is None else setup.null_label
    top = np.iinfo(np.int64).max if classes is None else classes - 1
    checked = [_whole("label", value, 0, top, also=also) for value in labels]
    return np.array(checked if many else checked * batch, np.int64)


def _check_hidden(name: str, array: object, batch: int, width: int | str) -> NDArray[Any]:
    expected = f"({batch}, tokens, {width})"
    if array is None:
        raise OptionError(
            "the network is conditioned on text, whose encoding is missing",
            got=f"{name}=None",
            expected=f"an array {expected}",
            fix="from Python, pass the text encoder's last hidden state: load(...).sample(encoder_hidden_states=...)",
        )
    value = check_array(name, array)
    fits = value.ndim == 3 and value.shape[0] in (1, batch) and width in (value.shape[-1], str(width))
    if value.dtype.kind != "f" or not fits:
        got = f"{value.dtype}{list(value.shape)}"
        raise ArrayError(f"{name} does not fit the network", got=got, expected=expected)
    if not np.isfinite(value).all():
        raise ArrayError(f"{name} holds NaN or infinity", expected="finite numbers")
    return np.broadcast_to(value, (batch, *value.shape[1:]))


def _whole(
    name: str, value: object, low: int, high: int | None = None, *, also: int | None = None, fix: str | None = None
) -> int:
    index = getattr(value, "__index__", None)
    number = index() if index is not None and not isinstance(value, (bool, np.bool_)) else None
    if number is not None and (number == also or (number >= low and (high is None or number <= high))):
        return int(number)
    bound = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    if also is not None and high is not None and not low <= also <= high:
        bound += f", or {also} for no class"
    raise OptionError(f"{name} is out of range", got=_brief(value), expected=bound, fix=fix)


def _brief(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        # Python refuses to write out integers of thousands of digits.
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
