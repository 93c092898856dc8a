"""Small networks trained in seconds, with a fixed seed and one thread, and exported: what `trained(name)` gives.

`plane-LOSS` learns the mixture PLANAR of points in the plane to one of the losses of export/reference/objectives.py;
`digits-LOSS` is a UNet of digits after so few steps that its samples are smudges.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from dpmrt.export.reference.objectives import OBJECTIVES

PLANES = tuple(f"plane-{loss}" for loss in OBJECTIVES)
DIGITS = tuple(f"digits-{loss}" for loss in ("learned-range", "ve"))
NETWORKS = (*PLANES, *DIGITS)

_DIGITS_STEPS, _DIGITS_BATCH = 12, 8
_PATIENCE = 300.0


def bundle_of(name: str, folder: Path) -> Path:
    """Return the bundle of a network below `folder`, trained and exported by whichever process comes first."""
    assert name in NETWORKS, f"{name}: one of {', '.join(NETWORKS)}"
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / name
    with _alone(folder / f"{name}.lock"):
        if not bundle.is_dir():
            _make(name, folder / f"{name}.training", bundle)
    return bundle


def _make(name: str, training: Path, bundle: Path) -> None:
    import torch

    from dpmrt.export import export_bundle
    from dpmrt.export.reference.loop import TrainOptions
    from dpmrt.export.reference.train import train_unet
    from dpmrt.export.reference.train_planar import export_arguments, train_planar

    torch.set_num_threads(1)
    kind, _, loss = name.partition("-")
    if kind == "digits":
        options = TrainOptions(steps=_DIGITS_STEPS, batch=_DIGITS_BATCH, warmup=5, ema=0.9, threads=1)
        export_bundle(train_unet(training, options, loss=loss), bundle)
        return
    made = export_arguments(train_planar(training, loss=loss), loss)
    export_bundle(
        made["source"], bundle, spec=made["spec"], weights=Path(made["weights"]), scheduler=made["scheduler"]
    )


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock between processes: the folder that one of them made."""
    began = time.monotonic()
    while True:
        try:
            lock.mkdir()
            break
        except FileExistsError:
            assert time.monotonic() - began < _PATIENCE, f"another process holds {lock}"
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.rmdir()
