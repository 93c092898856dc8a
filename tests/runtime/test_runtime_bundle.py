from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import Make, write_bundle

from dpmrt.errors import BundleError, DpmrtError, IntegrityError, ManifestError, OptionError
from dpmrt.runtime import load, open_bundle
from dpmrt.runtime.onnx_header import read_graph_header


def test_a_bundle_opens_with_its_configs(labelled: Path) -> None:
    bundle = open_bundle(str(labelled))
    assert bundle.manifest.name == "tiny"
    assert bundle.scheduler_config["_class_name"] == "DDIMScheduler"
    assert (bundle.classes, bundle.sample_shape) == (3, (1, 8, 8))


def test_a_folder_that_optimum_wrote_opens(make_bundle: Make) -> None:
    root = make_bundle(manifest=False, time="int64", scalar=True)
    bundle = open_bundle(root)
    assert [(spec.role, spec.dtype, spec.shape) for spec in bundle.manifest.unet.inputs] == [
        ("sample", "float32", ("batch", 1, 8, 8)),
        ("timestep", "int64", ()),
    ]
    with load(root) as pipeline:
        assert pipeline.sample(2, steps=4).shape == (2, 1, 8, 8)


def test_usual_names_are_recognised_and_others_can_be_given(tmp_path: Path) -> None:
    usual_names = {"sample": "latents", "timestep": "t", "out_sample": "o"}
    usual = write_bundle(tmp_path / "a", manifest=False, names=usual_names)
    assert [spec.name for spec in open_bundle(usual).manifest.unet.inputs] == ["latents", "t"]
    odd = write_bundle(tmp_path / "b", manifest=False, names={"sample": "picture", "timestep": "when"})
    with pytest.raises(BundleError, match="the graph needs one input for `sample`") as caught:
        open_bundle(odd)
    assert "names={'sample': '...'}" in str(caught.value.fix)
    names = {"sample": "picture", "timestep": "when"}
    np.testing.assert_array_equal(load(odd, names=names).sample(seed=3, steps=4), load(usual).sample(seed=3, steps=4))
    with pytest.raises(OptionError, match="unknown role"):
        open_bundle(odd, names={"Image": "picture"})
    shouted = write_bundle(tmp_path / "c", manifest=False, names={"sample": "PICTURE"})
    with pytest.raises(BundleError, match="cannot place") as caught:
        open_bundle(shouted)
    assert "names={ROLE: 'PICTURE'}" in str(caught.value.fix)


def test_the_prediction_type_of_a_foreign_folder_is_read(make_bundle: Make) -> None:
    root = make_bundle(manifest=False, scheduler={"prediction_type": "v_prediction"})
    assert open_bundle(root).manifest.prediction == "v_prediction"


def _alter(root: Path, name: str, data: bytes) -> None:
    (root / name).write_bytes(data)


BROKEN = {
    "altered graph": (IntegrityError, "model.onnx", lambda r: _alter(r, "unet/model.onnx", b"x")),
    "no graph": (BundleError, "missing", lambda r: (r / "unet/model.onnx").unlink()),
    "no scheduler": (BundleError, "missing", lambda r: (r / "scheduler/scheduler_config.json").unlink()),
    "manifest no JSON": (ManifestError, "not JSON", lambda r: _alter(r, "dpmrt.json", b"{")),
    "foreign manifest": (ManifestError, "`format`", lambda r: _alter(r, "dpmrt.json", b"{}")),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_bundle_is_refused(make_bundle: Make, case: str) -> None:
    kind, text, damage = BROKEN[case]
    root = make_bundle()
    damage(root)
    with pytest.raises(kind, match=text):
        load(root)


FOREIGN = {
    "scheduler missing": ("a file of the bundle is miss", lambda r: (r / "scheduler/scheduler_config.json").unlink()),
    "scheduler no JSON": ("is not JSON", lambda r: _alter(r, "scheduler/scheduler_config.json", b"[")),
    "scheduler a list": ("is not a JSON object", lambda r: _alter(r, "scheduler/scheduler_config.json", b"[]")),
    "graph empty": ("is not an ONNX model", lambda r: _alter(r, "unet/model.onnx", b"")),
    "graph text": ("is not an ONNX model", lambda r: _alter(r, "unet/model.onnx", b"hello, this is no graph")),
    "graph zeros": ("is not an ONNX model", lambda r: _alter(r, "unet/model.onnx", bytes(999))),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_broken_foreign_folder_is_refused(make_bundle: Make, case: str) -> None:
    text, damage = FOREIGN[case]
    root = make_bundle(manifest=False)
    damage(root)
    with pytest.raises(BundleError, match=text):
        load(root)


def test_no_prefix_of_a_graph_escapes_the_typed_errors(make_bundle: Make) -> None:
    graph = make_bundle(manifest=False) / "unet/model.onnx"
    whole = graph.read_bytes()
    for length in range(0, len(whole), 7):
        graph.write_bytes(whole[:length])
        with contextlib.suppress(BundleError):
            assert len(read_graph_header(graph).inputs) == 2


def test_a_bundle_that_lost_its_manifest_is_not_taken_for_a_foreign_folder(make_bundle: Make) -> None:
    root = make_bundle()
    (root / "parity.json").write_text("{}")
    (root / "dpmrt.json").unlink()
    with pytest.raises(BundleError, match=r"dpmrt\.json is missing"):
        open_bundle(root)


def test_only_a_folder_without_a_manifest_is_inferred(labelled: Path, make_bundle: Make) -> None:
    assert not open_bundle(labelled).inferred
    assert open_bundle(make_bundle(manifest=False)).inferred


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
@pytest.mark.parametrize("name", ["unet/model.onnx", "scheduler/scheduler_config.json", "dpmrt.json"])
def test_a_file_that_links_to_itself_is_refused(make_bundle: Make, name: str) -> None:
    root = make_bundle()
    (root / name).unlink()
    (root / name).symlink_to((root / name).name)
    with pytest.raises(BundleError):
        open_bundle(root)


def test_manifest_and_scheduler_must_agree(make_bundle: Make) -> None:
    root = make_bundle(scheduler={"prediction_type": "v_prediction"})
    with pytest.raises(ManifestError, match="disagree about what the network predicts"):
        open_bundle(root)


def test_manifest_and_graph_must_agree(make_bundle: Make) -> None:
    root = make_bundle()
    text = json.loads((root / "dpmrt.json").read_text())
    text["unet"]["inputs"][1]["dtype"] = "int64"
    (root / "dpmrt.json").write_text(json.dumps(text))
    with pytest.raises(BundleError, match="disagree about the input `timestep`") as caught:
        load(root)
    assert (str(caught.value.got), str(caught.value.expected)) == ("timestep float32[batch]", "timestep int64[batch]")


@pytest.mark.parametrize("axis", [4, 99])
def test_the_channels_are_on_an_axis_of_the_sample(make_bundle: Make, axis: int) -> None:
    root = make_bundle()
    text = json.loads((root / "dpmrt.json").read_text())
    text["unet"]["channel_axis"] = axis
    (root / "dpmrt.json").write_text(json.dumps(text))
    with pytest.raises(ManifestError, match=r"`unet\.channel_axis` is no axis of the sample") as caught:
        open_bundle(root)
    assert (caught.value.got, caught.value.expected) == (axis, "an axis of (batch, 1, 8, 8), behind the batch")


def test_a_name_that_is_no_bundle_lists_those_there_are() -> None:
    with pytest.raises(BundleError, match="none of this name ships with dpmrt"):
        open_bundle("no-such-bundle")
    with pytest.raises(DpmrtError, match="no bundle folder here"):
        open_bundle("no/such/folder")
