"""The digits in half precision: the same digits as in fp32, read as well as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from half_graphs import KINDS, Array

from dpmrt.engines import read_manifest, shipped_bundle
from dpmrt.export import export_bundle
from dpmrt.export.reference.classifiers import DigitReader, load_reader
from dpmrt.export.reference.quality import read_share
from dpmrt.runtime import load

CHECKPOINTS = shipped_bundle("digits").parent / "checkpoints"
LEAST = {"fp16": 40.0, "bf16": 30.0}
LABELS = np.arange(100) % 10


def sampled(bundle: Path, engine: str) -> Array:
    with load(bundle, engine) as pipeline:
        return pipeline.sample(len(LABELS), seed=0, steps=20, guidance=2.0, label=LABELS.tolist())


@pytest.fixture(scope="module")
def exact() -> Array:
    return sampled(shipped_bundle("digits"), "onnxruntime")


@pytest.fixture(scope="module")
def reader() -> DigitReader:
    return load_reader(CHECKPOINTS / "digits-reader")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_digits_in_half(kind: str, exact: Array, reader: DigitReader, tmp_path: Path) -> None:
    bundle = export_bundle(CHECKPOINTS / "digits-unet", tmp_path / kind, precision=kind)
    assert read_manifest(bundle, check=True).unet.precision.pinned == ()
    got = sampled(bundle, "emulated")
    rmse = np.sqrt(np.mean(np.square(got.astype(np.float64) - exact)))
    assert 20 * np.log10((exact.max() - exact.min()) / rmse) >= LEAST[kind]
    assert abs(read_share(got, LABELS, reader) - read_share(exact, LABELS, reader)) <= 0.01
