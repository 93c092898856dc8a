"""Small networks as diffusers saves them; each is traced once for the whole session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# Without dpmrt[export] nothing in this folder can be imported, and nothing in it is for such an installation.
if find_spec("torch") is None or find_spec("diffusers") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with class labels, for reading only."""
    from tiny_networks import labelled_unet, save_checkpoint

    return save_checkpoint(labelled_unet(), tmp_path_factory.mktemp("pristine") / "checkpoint")


@pytest.fixture
def checkpoint(pristine: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(pristine, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder with a sharded UNet2DConditionModel, for reading only."""
    from tiny_networks import conditional_unet, save_scheduler

    folder = tmp_path_factory.mktemp("conditional") / "pipeline"
    conditional_unet().save_pretrained(str(folder / "unet"), safe_serialization=True, max_shard_size="50KB")
    save_scheduler(folder)
    return folder


@pytest.fixture(scope="session")
def traced(pristine: Path) -> Any:
    from dpmrt.export.sources import load_source
    from dpmrt.export.tracing import trace

    source = load_source(pristine)
    return trace(source.skeleton, source.interface, source.weights)


@pytest.fixture(scope="session")
def traced_conditional(conditional: Path) -> Any:
    from dpmrt.export.sources import load_source
    from dpmrt.export.tracing import trace

    source = load_source(conditional)
    return trace(source.skeleton, source.interface, source.weights)


@pytest.fixture
def traced_once(traced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare a test the seconds of tracing: the labelled network's graph is at hand."""
    monkeypatch.setattr("dpmrt.export.network.trace", lambda *arguments, **options: traced.clone())


@pytest.fixture
def exported(traced_once: None, checkpoint: Path) -> Callable[..., Path]:
    """Export the labelled checkpoint into a bundle beside it."""
    from dpmrt.export import export_bundle

    def export(**options: Any) -> Path:
        return export_bundle(checkpoint, checkpoint.parent / "bundle", **options)

    return export


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Return the tiny network of a name with its graph, traced once."""
    from tiny_family import OPENED, Traced, tiny

    from dpmrt.export.sources import source_of_model

    known: dict[str, Traced] = {}

    def find(name: str) -> Traced:
        if name not in known:
            source = source_of_model(tiny(name)).shaped(OPENED.get(name))
            known[name] = Traced.of(source, tmp_path_factory.mktemp("graph"))
        return known[name]

    return find
