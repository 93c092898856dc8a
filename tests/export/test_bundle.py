"""A bundle says what it holds and where it came from, and appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tiny_networks import labelled_unet, listing, save_scheduler

import dpmrt
from dpmrt.engines import Defaults, Guidance, TensorSpec, read_manifest
from dpmrt.errors import ExportError, ManifestError, OptionError, OutputError
from dpmrt.export import bundle as bundle_module
from dpmrt.export import export_bundle, load_source
from dpmrt.export import network as network_module

FILES = [
    "dpmrt.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/model.onnx",
    "unet/weights.json",
]
Export = Callable[..., Path]


def test_manifest(exported: Export, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    bundle = exported(name="digits")
    assert listing(bundle) == FILES
    manifest = read_manifest(bundle)
    assert manifest.name == "digits"
    assert manifest.prediction == "epsilon"
    assert manifest.guidance == Guidance("classifier_free", classes=10, null_label=10, scale=2.0)
    assert manifest.data_range == (-1.0, 1.0)
    assert manifest.defaults == Defaults(steps=20)
    assert manifest.unet.inputs == (
        TensorSpec("sample", "sample", "float32", ("batch", 1, 8, 8)),
        TensorSpec("timestep", "timestep", "float32", ("batch",)),
        TensorSpec("class_labels", "class_labels", "int64", ("batch",)),
    )
    assert manifest.unet.outputs == (TensorSpec("out_sample", "out_sample", "float32", ("batch", 1, 8, 8)),)
    assert sorted(manifest.files) == FILES[1:]
    error = manifest.provenance.pop("relative_error")
    assert isinstance(error, float)
    assert 0 < error < 1e-5
    assert manifest.provenance == {
        "kind": "UNet2DModel",
        "source": "../checkpoint",
        "weights_sha256": load_source(checkpoint).weights_sha256,
        "parameters": sum(tensor.numel() for tensor in labelled_unet().parameters()),
        "precision": "fp32",
        "opset": 20,
        "date": "1970-01-02T00:00:00Z",
        "dpmrt": dpmrt.__version__,
        **{name: version(name) for name in ("torch", "diffusers", "onnx", "onnxscript")},
    }


def test_the_same_export_gives_the_same_bytes(exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    first = {name: (exported(force=True) / name).read_bytes() for name in FILES}
    assert {name: (exported(force=True) / name).read_bytes() for name in FILES} == first


def test_configs_are_kept_without_local_paths(exported: Export, checkpoint: Path) -> None:
    config = checkpoint / "unet/config.json"
    kept = json.loads(config.read_text())
    config.write_text(json.dumps({**kept, "_name_or_path": "/home/someone/model"}))
    bundle = exported()
    assert json.loads((bundle / "unet/config.json").read_text()) == kept
    scheduler = "scheduler/scheduler_config.json"
    assert json.loads((bundle / scheduler).read_text()) == json.loads((checkpoint / scheduler).read_text())


def test_files_have_the_usual_permissions(exported: Export) -> None:
    bundle = exported()
    mask = os.umask(0)
    os.umask(mask)
    assert bundle.stat().st_mode & 0o777 == 0o777 & ~mask
    assert (bundle / "unet/model.onnx").stat().st_mode & 0o777 == 0o666 & ~mask


def test_external_data_is_recorded(exported: Export) -> None:
    manifest = read_manifest(exported(external_above=1000))
    assert manifest.unet.data == ("unet/model.onnx_data",)
    assert "unet/model.onnx_data" in manifest.files


def test_phases_are_told_in_order(exported: Export) -> None:
    told: list[str] = []
    exported(progress=lambda phase, text="": None if phase in told else told.append(phase))
    assert tuple(told) == bundle_module.phases("fp32")


def test_network_in_memory(traced_once: None, tmp_path: Path) -> None:
    scheduler = save_scheduler(tmp_path)
    with pytest.raises(ExportError, match=r"the scheduler is missing(.|\n)*pass --scheduler"):
        export_bundle(labelled_unet(), tmp_path / "bundle")
    manifest = read_manifest(export_bundle(labelled_unet(), tmp_path / "bundle", scheduler=scheduler.parent))
    assert "source" not in manifest.provenance
    assert manifest.guidance is None


def test_no_absolute_path_enters_the_manifest(exported: Export, checkpoint: Path) -> None:
    with pytest.raises(OptionError, match="no such subfolder"):
        exported(subfolder=str(checkpoint / "unet"))
    bundle = exported(subfolder="unet")
    assert read_manifest(bundle).provenance["subfolder"] == "unet"
    assert str(checkpoint.parent) not in (bundle / "dpmrt.json").read_text()


def test_own_guidance_defaults_and_scheduler(exported: Export, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}')
    guidance, defaults = Guidance("classifier_free", 10, 10, 7.5), Defaults(steps=5)
    bundle = exported(guidance=guidance, defaults=defaults, scheduler=other)
    manifest = read_manifest(bundle)
    assert (manifest.guidance, manifest.defaults, manifest.prediction) == (guidance, defaults, "v_prediction")
    assert json.loads((bundle / manifest.scheduler).read_text())["_class_name"] == "DDIMScheduler"


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "precision": ({"precision": "fp8"}, OptionError, r"unknown precision\n  got:      fp8\n  expected: fp32"),
    "name": ({"name": " "}, OptionError, "name is empty"),
    "guidance": (
        {"guidance": Guidance("classifier_free", 10, 11)},
        ExportError,
        r"the guidance does not fit(.|\n)*null label 11(.|\n)*labels below 11",
    ),
    "no scheduler": ({"scheduler": "nowhere"}, ExportError, r"the scheduler is missing(.|\n)*at nowhere"),
    "default steps": ({"defaults": Defaults(steps=0)}, ManifestError, r"`defaults\.steps` is out of range"),
    "scale": (
        {"guidance": Guidance("classifier_free", 10, 10, float("nan"))},
        ManifestError,
        r"`guidance\.scale` is out of range(.|\n)*nan",
    ),
    "subfolder outside": (
        {"subfolder": "../checkpoint/unet"},
        OptionError,
        "no such subfolder(.|\n)*within the source",
    ),
    "subfolder": ({"subfolder": "vae"}, OptionError, "no such subfolder"),
}


@pytest.mark.parametrize(("options", "kind", "text"), WRONG.values(), ids=WRONG)
def test_wrong_requests(exported: Export, options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        exported(**options)


SCHEDULERS = {
    '{"_class_name": "Nonesuch"}': "names no scheduler of diffusers(.|\n)*'Nonesuch'",
    '{"_class_name": "UNet2DModel"}': "names no scheduler of diffusers",
    '{"_class_name": "DDIMScheduler", "prediction_type": "flow_prediction"}': (
        "prediction_type (.|\n)*'flow_prediction'"
    ),
    '{"_class_name": "RePaintScheduler"}': (
        "cannot sample with this scheduler(.|\n)*'RePaint(.|\n)*--scheduler PATH(.|\n)*DDIMScheduler"
    ),
    '{"_class_name": "DPMSolverMultistepScheduler", "use_beta_sigmas": true, "use_karras_sigmas": true}': (
        "cannot sample with this scheduler(.|\n)*only one ladder(.|\n)*--scheduler PATH"
    ),
    "[]": r"scheduler_config\.json is no JSON object",
    "{": r"scheduler_config\.json is not JSON",
}


@pytest.mark.parametrize(("content", "text"), SCHEDULERS.items())
def test_wrong_schedulers(exported: Export, checkpoint: Path, content: str, text: str) -> None:
    (checkpoint / "scheduler/scheduler_config.json").write_text(content)
    with pytest.raises(ExportError, match=text):
        exported()
    assert not (checkpoint.parent / "bundle").exists()


def test_wrong_date(exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(OptionError, match=r"SOURCE_DATE_EPOCH is no time(.|\n)*yesterday"):
        exported()


def test_the_target_is_looked_at_before_the_source(pristine: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("dear")
    with pytest.raises(OutputError, match="the target holds something else"):
        export_bundle("no such source", tmp_path, force=True)
    assert listing(tmp_path) == ["letters"]


@pytest.mark.parametrize("manifest", ["{}", "[]", "{", '{"format": "optimum", "files": {"notes.txt": {}}}'])
def test_force_leaves_a_folder_with_another_manifest(exported: Export, checkpoint: Path, manifest: str) -> None:
    bundle = checkpoint.parent / "bundle"
    bundle.mkdir()
    (bundle / "dpmrt.json").write_text(manifest)
    (bundle / "notes.txt").write_text("dear")
    with pytest.raises(OutputError, match=r"got: +dpmrt\.json in(.|\n)*did not write"):
        exported(force=True)
    assert listing(bundle) == ["dpmrt.json", "notes.txt"]


def test_force_replaces_a_bundle_with_its_parity_and_engines_alone(exported: Export) -> None:
    bundle = exported()
    (bundle / "engines").mkdir()
    for name in ("parity.json", "engines/some.plan"):
        (bundle / name).write_text("{}")
    (bundle / "unet/notes.txt").write_text("dear")
    with pytest.raises(OutputError, match=r"unet/notes\.txt in"):
        exported(force=True)
    (bundle / "unet/notes.txt").unlink()
    assert listing(exported(force=True)) == FILES


STEPS = {
    "trace": network_module,
    "write_onnx": network_module,
    "compare_onnx": network_module,
    "record_file": bundle_module,
    "write_manifest": bundle_module,
}
FAILURES = (KeyboardInterrupt(), OSError(28, "No space left on device"))


@pytest.mark.parametrize("error", FAILURES, ids=["interrupt", "disk full"])
@pytest.mark.parametrize("step", STEPS)
def test_a_failure_leaves_nothing_and_keeps_the_previous(
    exported: Export, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    before = STEPS[step].__dict__[step]
    monkeypatch.setattr(STEPS[step], step, fail)
    with pytest.raises((KeyboardInterrupt, OSError)) as caught:
        exported()
    if isinstance(error, OSError) and step != "trace":
        assert isinstance(caught.value, OutputError)
        assert "No space left on device" in str(caught.value)
    assert os.listdir(checkpoint.parent) == ["checkpoint"]

    monkeypatch.setattr(STEPS[step], step, before)
    previous = exported(name="previous")
    monkeypatch.setattr(STEPS[step], step, fail)
    with pytest.raises((KeyboardInterrupt, OSError)):
        exported(force=True)
    assert read_manifest(previous).name == "previous"
    assert sorted(os.listdir(checkpoint.parent)) == ["bundle", "checkpoint"]


def test_a_graph_that_disagrees_is_not_kept(exported: Export, checkpoint: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkpoint / "unet")
    labelled_unet(seed=1).save_pretrained(str(checkpoint / "unet"))
    with pytest.raises(ExportError, match="computes something else than torch"):
        exported()
    assert os.listdir(tmp_path) == ["checkpoint"]
