"""Which TensorRT is installed: found by name, imported when asked for, refused with the reason."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dpmrt.engines.built import FLAVOURS, Flavour, Library
from dpmrt.engines.built.schema import TITLES
from dpmrt.errors import BackendError, MissingExtraError, OptionError
from dpmrt.runtime.interrupt import was_interrupted

#: the first versions whose API the code was written for
OLDEST: dict[Flavour, str] = {"tensorrt": "10.3", "tensorrt_rtx": "1.4"}
_EXTRAS: dict[Flavour, str] = {"tensorrt": "dpmrt[tensorrt]", "tensorrt_rtx": "dpmrt[rtx]"}


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT: its Python module, and what it is."""

    module: Any
    library: Library

    @property
    def flavour(self) -> Flavour:
        """Return which of the two it is."""
        return self.library.flavour

    @property
    def major(self) -> int:
        """Return the major version."""
        return self.library.numbers[0]


def installed_flavours() -> tuple[Flavour, ...]:
    """Return the flavours whose Python module is there, without importing it."""
    return tuple(flavour for flavour in FLAVOURS if _is_installed(flavour))


def load_library(flavour: Flavour | None = None) -> TensorRT:
    """Import TensorRT or TensorRT-RTX; without a flavour, the first that is installed and loads, in this order.

    Raises MissingExtraError where none is installed, BackendError where it cannot be loaded or is too old.
    """
    if flavour is not None and flavour not in FLAVOURS:
        raise OptionError("unknown flavour of TensorRT", got=repr(flavour), expected=" or ".join(FLAVOURS))
    wanted: Sequence[Flavour] = FLAVOURS if flavour is None else (flavour,)
    there = [name for name in wanted if _is_installed(name)]
    if not there:
        raise MissingExtraError(
            f"{' or '.join(TITLES[name] for name in wanted)} is not installed",
            got=f"no module {' or '.join(wanted)}",
            expected=" or ".join(f"{TITLES[name]} {OLDEST[name]} or newer" for name in wanted),
            fix=" or ".join(f"pip install '{_EXTRAS[name]}'" for name in reversed(wanted)),
        )
    refused: BackendError | None = None
    for name in there:
        try:
            return _load(name)
        except BackendError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _is_installed(flavour: Flavour) -> bool:
    try:
        spec = find_spec(flavour)
        # A mere folder of that name, which Python takes for a package, has no origin.
        return spec is not None and spec.origin is not None
    except (ImportError, ValueError):
        return False


def _load(flavour: Flavour) -> TensorRT:
    title = TITLES[flavour]
    try:
        module: Any = importlib.import_module(flavour)
        # A module without a builder is a package whose native part never came.
        version, _ = str(module.__version__), module.Builder
    except Exception as error:
        if was_interrupted(error):
            raise KeyboardInterrupt from error
        raise BackendError(
            f"{title} is installed and cannot be loaded",
            got=f"{type(error).__name__}: {error}",
            expected=f"module {flavour} with its libraries and a CUDA that suits them",
            fix=f"pip install --force-reinstall '{_EXTRAS[flavour]}', and see that its libraries are found",
        ) from error
    library = Library(flavour, version)
    oldest = OLDEST[flavour]
    if library.numbers[:2] < Library(flavour, oldest).numbers:
        raise BackendError(
            f"{title} is too old",
            got=str(library),
            expected=f"{title} {oldest} or newer",
            fix=f"pip install --upgrade '{_EXTRAS[flavour]}'",
        )
    return TensorRT(module, library)
