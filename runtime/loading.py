"""load: a bundle opened, together with a backend that runs its network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmrt.errors import OptionError
from dpmrt.runtime.backends import Backend, open_backend
from dpmrt.runtime.bundle import open_bundle
from dpmrt.runtime.pipeline import Pipeline


def load(
    bundle: str | Path, engine: str | Backend = "auto", *, names: Mapping[str, str] | None = None, **options: Any
) -> Pipeline:
    """Load a bundle: a folder, or the name of one that ships with dpmrt.

    `engine` is a backend's name, or a backend; `options` are the backend's own, as `threads=2`. `names` maps roles
    to the graph's names for a folder that has no manifest and whose exporter used unusual ones.

    >>> with load("digits") as pipeline:
    ...     pipeline.sample(2, seed=0).shape
    (2, 1, 16, 16)
    """
    opened = open_bundle(bundle, names=names)
    if isinstance(engine, str):
        backend = open_backend(engine, opened.root, opened.manifest.unet, **options)
    elif not isinstance(engine, Backend):
        raise OptionError(
            "engine is neither a name nor a backend", got=repr(engine), expected="a name, as 'auto', or a Backend"
        )
    elif options:
        raise OptionError("a backend that is open already takes no options", got=", ".join(options), expected="none")
    else:
        backend = engine
    try:
        return Pipeline(opened, backend)
    except BaseException:
        backend.close()
        raise
