"""From where a classifier comes: a reference checkpoint, or a factory with its weights. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes

from dpmrt.engines import hash_file
from dpmrt.errors import BundleError, ExportError, OptionError
from dpmrt.export.reference.classifiers import NoisyDigitClassifier, load_classifier
from dpmrt.export.reference.digits import IMAGE_SIZE, NUM_DIGITS

WEIGHTS_NAME = "model.safetensors"

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_FORMS = f"a folder with config.json and {WEIGHTS_NAME} of a {NoisyDigitClassifier.kind}, or package.module:factory"


@dataclass(frozen=True)
class ClassifierSource:
    """A module called as classifier(x, t), which gives logits; the shape of one x, and what it was made of."""

    model: Any
    sample_shape: tuple[int, ...]
    classes: int
    weights_sha256: str
    kind: str
    train_timesteps: int | None = None
    folder: Path | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        """Return what a bundle says about the classifier beside its graph."""
        return {
            "kind": self.kind,
            "sample_shape": list(self.sample_shape),
            "classes": self.classes,
            "weights_sha256": self.weights_sha256,
            **({} if self.train_timesteps is None else {"train_timesteps": self.train_timesteps}),
        }


def load_classifier_source(
    source: str | Path,
    *,
    sample_shape: Sequence[int] | None = None,
    classes: int | None = None,
    weights: str | Path | None = None,
) -> ClassifierSource:
    """Load the folder of a reference classifier, or what `package.module:factory` returns when it is called.

    A factory needs `sample_shape` (without the batch) and `classes`; `weights` is a safetensors file for its module.
    A folder knows all three itself.

    >>> load_classifier_source("engines/checkpoints/digits-classifier").sample_shape
    (1, 16, 16)
    """
    if Path(source).is_dir():
        if (sample_shape, classes, weights) != (None, None, None):
            raise OptionError(
                "a classifier's folder says itself what it takes",
                got=f"sample_shape={sample_shape}, classes={classes}, weights={weights}",
                expected="none of them",
                fix="leave them out",
            )
        return _reference(Path(source))
    if not _FACTORY.fullmatch(str(source)):
        raise ExportError("no classifier here", got=source, expected=_FORMS, fix="train one: dpmrt train-reference")
    return _made(str(source), _shape(sample_shape), _classes(classes), None if weights is None else Path(weights))


def _reference(folder: Path) -> ClassifierSource:
    try:
        # The random weights that it starts with are all replaced; the caller's random state is not.
        with torch.random.fork_rng(devices=[]):
            model = load_classifier(folder)
    except BundleError as error:
        raise ExportError(error.what, got=error.got, expected=error.expected, fix=error.fix) from error
    digest = hash_file(folder / WEIGHTS_NAME)
    source = _source(model, (1, IMAGE_SIZE, IMAGE_SIZE), NUM_DIGITS, digest, model.kind)
    return replace(source, train_timesteps=_train_timesteps(folder), folder=folder)


def _train_timesteps(folder: Path) -> int | None:
    """Return how many times the classifier was trained for, where its training left a record."""
    try:
        count = json.loads((folder / "training.json").read_bytes())["noise"]["num_train_timesteps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return count if type(count) is int and count > 0 else None


def _made(name: str, shape: tuple[int, ...], classes: int, weights: Path | None) -> ClassifierSource:
    model = _call(name)
    if weights is None:
        state = {key: tensor.detach().clone().contiguous() for key, tensor in model.state_dict().items()}
        return _source(model, shape, classes, hashlib.sha256(safetensors_bytes(state)).hexdigest(), name)
    try:
        model.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ExportError(
            "the weights do not fit the classifier",
            got=f"{weights}: {error}",
            expected=f"a safetensors file with the tensors of what {name} returns",
            fix="save them with safetensors.torch.save_file(model.state_dict(), path); nothing is unpickled",
        ) from error
    return _source(model, shape, classes, hash_file(weights), name)


def _call(name: str) -> Any:
    module, _, factory = name.partition(":")
    try:
        with torch.random.fork_rng(devices=[]):
            model = getattr(importlib.import_module(module), factory)()
    except Exception as error:
        raise ExportError(
            "the classifier's factory failed",
            got=f"{name}: {type(error).__name__}: {error}",
            expected="an importable function that returns a torch.nn.Module when called without arguments",
            fix="put the folder of the module on PYTHONPATH",
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise ExportError(
            "the classifier's factory returns no module",
            got=f"{type(model).__name__} from {name}",
            expected="a torch.nn.Module",
        )
    return model


def _source(model: Any, shape: tuple[int, ...], classes: int, digest: str, kind: str) -> ClassifierSource:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    bad = sorted(name for name, tensor in tensors if tensor.is_floating_point() and not tensor.isfinite().all())
    if bad:
        raise ExportError(
            "the classifier's tensors hold NaN or infinity",
            got=", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else ""),
            expected="numbers",
            fix="take the weights of an earlier step of the training",
        )
    model = model.to("cpu", torch.float32).eval().requires_grad_(False)
    return ClassifierSource(model, shape, classes, digest, kind)


def _shape(shape: Sequence[int] | None) -> tuple[int, ...]:
    if shape is None or not shape or any(type(size) is not int or size < 1 for size in shape):
        raise OptionError(
            "a factory needs the shape of one sample",
            got=f"sample_shape={shape}",
            expected="sizes from 1, without the batch",
            fix="pass sample_shape=(3, 64, 64)",
        )
    return tuple(shape)


def _classes(classes: int | None) -> int:
    if type(classes) is not int or classes < 2:
        raise OptionError(
            "a factory needs the number of classes",
            got=f"classes={classes}",
            expected="2 or more",
            fix="pass classes=10",
        )
    return classes
