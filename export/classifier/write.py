"""A classifier's gradient as a part of a bundle: written, held against torch, described, matched with the UNet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dpmrt.engines import Guidance, Network, TensorSpec
from dpmrt.errors import ExportError
from dpmrt.export.classifier.gradient import INPUTS, LogProbabilityGradient, examples, trace_gradient, unlikely
from dpmrt.export.classifier.load import ClassifierSource
from dpmrt.export.closeness import close_to_torch, relative_error
from dpmrt.export.gradients import runner
from dpmrt.export.onnx_files import EXTERNAL_ABOVE, write_onnx

FOLDER = "classifier"
CONFIG_NAME = "config.json"
#: where the manifest's provenance names the folder of a classifier, relative to the bundle
RECORD = "classifier_source"
#: the norm of the difference from torch's gradient over that of the gradient
TOLERANCE = 1e-5

_CHECKED_BATCHES = (1, 2, 5)
_CHECKED_TIMES = (0.0, 250.0, 500.5, 999.0, None)


def export_classifier(
    source: ClassifierSource, folder: str | Path, *, external_above: int = EXTERNAL_ABOVE
) -> Network:
    """Write `classifier/model.onnx` and its config.json into a bundle's folder, and return their description.

    The graph is held against torch.autograd at several batches and times; a relative error above TOLERANCE, or
    whatever else fails, leaves no files.

        export_classifier(load_classifier_source("engines/checkpoints/digits-classifier"), scratch)
    """
    graph = trace_gradient(source)
    target = Path(folder) / FOLDER
    if target.exists():
        raise ExportError("a classifier is there already", got=target, expected="a bundle's folder without one")
    target.mkdir()
    try:
        written = write_onnx(graph, target, external_above=external_above)
        (target / CONFIG_NAME).write_text(
            json.dumps(source.config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        check_gradient(written.graph, source)
    except BaseException:
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
        raise
    return Network(
        path=f"{FOLDER}/{written.graph.name}",
        inputs=(
            TensorSpec("sample", "sample", "float32", ("batch", *source.sample_shape)),
            TensorSpec("timestep", "timestep", "float32", ("batch",)),
            TensorSpec("class_labels", "class_labels", "int64", ("batch",)),
        ),
        outputs=(TensorSpec("gradient", "gradient", "float32", ("batch", *source.sample_shape)),),
        data=(f"{FOLDER}/{written.data.name}",) if written.data else (),
        config=f"{FOLDER}/{CONFIG_NAME}",
    )


def check_gradient(path: Path, source: ClassifierSource) -> float:
    """Return the largest relative error of the graph against torch.autograd; refuse one above TOLERANCE."""
    run = runner(path)
    module = LogProbabilityGradient(source.model)
    worst = 0.0
    for batch in _CHECKED_BATCHES:
        for seed, time in enumerate(_CHECKED_TIMES):
            sample, timestep, _ = examples(source, batch, seed=seed)
            timestep = timestep if time is None else torch.full_like(timestep, time)
            inputs = (sample, timestep, unlikely(source, sample, timestep))
            expected = module(*inputs).numpy()
            worst = max(
                worst,
                close_to_torch(
                    relative_error(run(dict(zip(INPUTS, inputs)))[0], expected),
                    TOLERANCE,
                    "the exported gradient is not that of torch",
                    where=f"at batch {batch}, times {timestep.tolist()}",
                    report="classifier's modules",
                ),
            )
    return worst


def check_fits(unet: Network, classifier: ClassifierSource, guidance: Guidance | None) -> None:
    """Refuse a classifier of other samples or other classes than the UNet's."""
    taken, classes = classifier.sample_shape, classifier.classes
    fixed = [(own, size) for own, size in zip(taken, unet.sample_shape) if isinstance(size, int)]
    if len(taken) != len(unet.sample_shape) or any(own != size for own, size in fixed):
        raise ExportError(
            "the classifier reads other samples than the UNet makes",
            got=f"samples of shape {taken}",
            expected=f"samples of shape {unet.sample_shape}",
            fix="take a classifier that was trained on noisy samples of this UNet's kind",
        )
    if guidance is not None and guidance.classes != classes:
        raise ExportError(
            "the classifier knows other classes than the UNet",
            got=f"{classes} classes",
            expected=f"{guidance.classes} classes, as the guidance has",
            fix="take a classifier that was trained on the same labels",
        )


def check_trained_times(classifier: ClassifierSource, scheduler: Mapping[str, Any]) -> None:
    """Refuse a classifier that is known to be trained for other times than the UNet's schedule has."""
    own, steps = classifier.train_timesteps, scheduler.get("num_train_timesteps")
    if own is not None and isinstance(steps, int) and own != steps:
        raise ExportError(
            "the classifier was trained for other times than the UNet",
            got=f"{own} training times",
            expected=f"{steps}, as the scheduler's config says",
            fix="take a classifier that was trained on the same noise schedule",
        )
