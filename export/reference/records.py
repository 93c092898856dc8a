"""What is written beside trained weights: how they were made, and how to build their network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpmrt.export.provenance import library_versions
from dpmrt.export.reference.digits import DATA_RANGE, DATASET, NUM_DIGITS
from dpmrt.export.reference.loop import Fitted, TrainOptions

TRAINING_NAME = "training.json"

#: the facts of every training on the digits
DIGITS: Mapping[str, Any] = {"dataset": DATASET, "data_range": DATA_RANGE, "num_classes": NUM_DIGITS}

_CLASSIFIER_FILES = (TRAINING_NAME, "config.json", "model.safetensors")
_FILES = {
    "unet": (
        TRAINING_NAME,
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ),
    "classifier": _CLASSIFIER_FILES,
    "reader": _CLASSIFIER_FILES,
    "planar": (TRAINING_NAME, "model.safetensors", "scheduler/scheduler_config.json"),
}


def write_training(folder: Path, kind: str, options: TrainOptions, fitted: Fitted, **facts: Any) -> None:
    """Write `training.json`: the data and what else is a fact of this network, the options, and what the run took."""
    record = {
        "kind": kind,
        **facts,
        "seed": options.seed,
        "steps": fitted.steps,
        "minutes": round(fitted.minutes, 2),
        "batch": options.batch,
        "lr": options.lr,
        "warmup": options.warmup,
        "weight_decay": options.weight_decay,
        "ema": options.ema,
        "final_loss": round(fitted.final_loss, 6),
        "parameters": sum(p.numel() for p in fitted.model.parameters()),
        "versions": library_versions("torch", "diffusers", "scikit-learn", "safetensors"),
    }
    write_json(folder / TRAINING_NAME, record)


def training_files(folder: Path) -> tuple[str, ...]:
    """Return the files of a training, by the kind that its `training.json` names; none, if that is not ours."""
    try:
        kind = json.loads((folder / TRAINING_NAME).read_bytes())["kind"]
        return _FILES[kind]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record in the order of its keys, so that the same record gives the same bytes."""
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
