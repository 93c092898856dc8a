"""Bundles with a classifier that torch differentiates too: a small smooth network of three classes."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from tiny_bundles import CLASSES, SIDE, write_bundle
from tiny_conditioned import save_graph
from torch import nn

from dpmrt.engines import Network, TensorSpec, read_manifest, record_file, write_manifest
from dpmrt.export.classifier import ClassifierSource, export_classifier


class SmallJudge(nn.Module):
    """Logits of noisy pictures; the time shifts what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.shift = nn.Linear(2, 6)
        self.head = nn.Linear(6 * (SIDE // 2) ** 2, CLASSES)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        phase = t[:, None] / 400
        shift = self.shift(torch.cat([phase.sin(), phase.cos()], dim=1))
        return self.head(nn.functional.silu(self.conv(x) + shift[:, :, None, None]).flatten(1))


def small_judge() -> SmallJudge:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return SmallJudge().eval().requires_grad_(False)


@functools.lru_cache(maxsize=1)
def _exported() -> tuple[Path, Network]:
    """Export once for all bundles of a run: it takes seconds."""
    folder = Path(tempfile.mkdtemp(prefix="dpmrt-judge-"))
    source = ClassifierSource(small_judge(), (1, SIDE, SIDE), CLASSES, "0" * 64, "tests:judge", 1000)
    return folder, export_classifier(source, folder)


def write_judged(root: Path, **variant: Any) -> Path:
    """Write a tiny bundle together with the gradient of the small classifier."""
    write_bundle(root, **{"labels": True, **variant})
    folder, network = _exported()
    shutil.copytree(folder / "classifier", root / "classifier")
    return _with_classifier(root, network)


def write_misjudged(root: Path, *, side: int = SIDE, classes: int = CLASSES, steps: int = 1000, **more: Any) -> Path:
    """Write a tiny bundle with a classifier that says what it is for, and whose graph is not for running."""
    write_bundle(root, labels=True)
    labels: Any = {"class_labels": ("int64", ("batch",))}
    inputs = (
        TensorSpec("sample", "sample", "float32", ("batch", 1, side, side)),
        TensorSpec("timestep", "timestep", more.get("time", "float32"), ("batch",)),
        TensorSpec("class_labels", "class_labels", "int64", ("batch",)),
    )
    outputs = (TensorSpec("gradient", "out_sample", "float32", ("batch", 1, side, side)),)
    save_graph(root / "classifier/model.onnx", inputs, outputs, labels, 1, False)
    (root / "classifier/config.json").write_text(json.dumps({"classes": classes, "train_timesteps": steps}))
    axes = {"batch": more["batch"]} if "batch" in more else {}
    network = Network("classifier/model.onnx", inputs, outputs, config="classifier/config.json", axes=axes)
    return _with_classifier(root, network)


def _with_classifier(root: Path, network: Network) -> Path:
    manifest = read_manifest(root)
    files = {**manifest.files, **{name: record_file(root / name) for name in (network.path, str(network.config))}}
    write_manifest(root, msgspec.structs.replace(manifest, version=2, classifier=network, files=files))
    return root


def autograd(labels: Any) -> Any:
    """Return gradient(x, t) of log p(label | x) by torch in float64."""
    judge = small_judge().double()

    def gradient(x: torch.Tensor, t: float) -> torch.Tensor:
        given = torch.as_tensor(np.broadcast_to(labels, len(x)).copy())
        with torch.enable_grad():
            z = x.detach().clone().requires_grad_(True)
            logits = judge(z, torch.full((len(z),), t, dtype=torch.float64))
            chosen = torch.log_softmax(logits, dim=1)[torch.arange(len(z)), given].sum()
            return torch.autograd.grad(chosen, z)[0]

    return gradient
