"""The files that an engine is made from, with and without a manifest that names them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from dpmrt.engines import Network
from dpmrt.engines.built import source_hashes
from dpmrt.errors import BundleError


def test_weights_that_only_the_graph_names_are_part_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "unet").mkdir()
    weights = onnx.numpy_helper.from_array(np.zeros(512, np.float32), "w")
    graph = onnx.helper.make_graph([], "g", [], [], [weights])
    onnx.save(
        onnx.helper.make_model(graph), tmp_path / "unet/model.onnx", save_as_external_data=True, location="w.data"
    )
    hashes = source_hashes(tmp_path, Network(path="unet/model.onnx", inputs=(), outputs=()))
    assert hashes == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("unet/model.onnx", "unet/w.data")
    }


def test_a_graph_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"unet/model.onnx or its weights cannot be read[\s\S]*dpmrt export"):
        source_hashes(tmp_path, Network(path="unet/model.onnx", inputs=(), outputs=()))
