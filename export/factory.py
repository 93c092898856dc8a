"""A network that is no diffusers folder: a function that makes it, named on the command line."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes

from dpmrt.engines import hash_file
from dpmrt.errors import ExportError
from dpmrt.export.interfaces.spec import Spec, interface_of_spec, read_spec, spec_of
from dpmrt.export.sources import Source, Training
from dpmrt.export.weights import WeightFiles, check_weights


def is_factory(name: str) -> bool:
    """Return whether a source is named as PACKAGE.MODULE:FACTORY."""
    module, colon, function = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), function])


def load_factory(
    name: str,
    spec: Path | str | Mapping[str, Any] | None,
    weights: Path | str | None = None,
    *,
    scheduler: Path | None = None,
) -> Source:
    """Make the network that PACKAGE.MODULE:FACTORY returns, described by a spec: a TOML file, a mapping, or a name.

    Its weights are those of the safetensors file `weights`, or else the ones that it was made with.
    """
    described, where = _spec(spec, name)
    interface = interface_of_spec(described, where)
    factory = _named(name)
    try:
        with _here_importable():
            model = factory()
    except Exception as error:
        raise ExportError(
            "the factory failed", got=f"{name}: {type(error).__name__}: {error}", expected="a torch.nn.Module"
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise ExportError("the factory makes no network", got=type(model).__name__, expected="a torch.nn.Module")
    interface.check_forward(model)
    files: Mapping[str, torch.Tensor]
    if weights is not None:
        weights = Path(weights)
        if not weights.is_file():
            raise ExportError("the weights are missing", got=weights, expected="a safetensors file")
        files = WeightFiles([weights])
        check_weights(model, files, name)
        digest = hash_file(weights)
    else:
        files = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
        digest = hashlib.sha256(safetensors_bytes({k: t.contiguous() for k, t in files.items()})).hexdigest()
    return Source(
        # The graph is traced in fp32, whatever type the factory chose.
        skeleton=model.float().eval().requires_grad_(False),
        kind=name,
        config={"_class_name": type(model).__name__, "factory": name},
        declared=interface,
        weights=files,
        weights_sha256=digest,
        scheduler=scheduler,
        training=_training(described),
    )


def _training(spec: Spec) -> Training | None:
    if spec.null_label is None:
        return None
    known = spec.null_label if spec.null_label == spec.labels - 1 else spec.labels
    return Training(num_classes=known, null_class=spec.null_label)


def _spec(spec: Path | str | Mapping[str, Any] | None, name: str) -> tuple[Spec, str]:
    if spec is None:
        raise ExportError(
            "nothing says what the network takes",
            got=f"{name} without a spec",
            expected="shapes of its inputs and of its output",
            fix="pass --spec FILE.toml, or --spec PACKAGE.MODULE:NAME of a mapping (spec=... in Python)",
        )
    if isinstance(spec, Mapping):
        return spec_of(spec, "spec"), "spec"
    text = str(spec)
    if is_factory(text) and not Path(text).exists():
        found = _named(text)
        if not isinstance(found, Mapping):
            raise ExportError("the spec is no mapping", got=f"{text}: {type(found).__name__}", expected="a mapping")
        return spec_of(found, text), text
    return read_spec(Path(text)), text


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    with _here_importable():
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise ExportError(
                "this names nothing that can be imported",
                got=f"{name}: {type(error).__name__}: {error}",
                expected="PACKAGE.MODULE:NAME, importable from here",
                fix="run the command where the package is, or install it",
            ) from error


@contextlib.contextmanager
def _here_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
