"""A bundle follows torch over a whole trajectory, and one that does not is found out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from click.testing import CliRunner
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from tiny_networks import labelled_unet

from dpmrt.engines import read_manifest, read_parity, record_file, write_manifest
from dpmrt.errors import BundleError, DpmrtError, OptionError, OutputError, VerificationError
from dpmrt.export import export_bundle, verify
from dpmrt.export.cli.verify import command

Export = Callable[..., Path]


@pytest.fixture
def bundle(exported: Export) -> Path:
    return exported()


def with_other_weights(bundle: Path) -> None:
    """Make every weight of the bundle's graph 1 % larger, and the manifest agree with it."""
    path = bundle / "unet/model.onnx"
    graph = onnx.load(path)
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 1.01, tensor.name))
    onnx.save(graph, path)
    manifest = read_manifest(bundle, check=False)
    files = {**manifest.files, "unet/model.onnx": record_file(path)}
    write_manifest(bundle, msgspec.structs.replace(manifest, files=files))


def test_a_good_bundle_passes(bundle: Path) -> None:
    told: list[tuple[str, int, int]] = []
    report = verify(bundle, steps=6, progress=lambda *event: told.append(event))
    assert report.passed
    assert report.drift is not None
    assert report.drift < 1e-5
    (ran,) = report.backends
    assert [row.t for row in ran.steps] == [999, 832, 666, 500, 333, 166]
    assert all(0 <= row.drift < 1e-5 and row.rms > 0 for row in ran.steps)
    assert ran.onnx_sha256 == read_manifest(bundle).files[ran.graph].sha256
    assert report.options == {"steps": 6, "batch": 2, "seed": 0, "guidance": 2.0}
    assert read_parity(bundle) == report
    phases = ["torch: single calls", "torch: trajectory", "onnxruntime: single calls", "onnxruntime: trajectory"]
    sizes = [6, 6, 6, 6]
    begun = [(phase, 0, 0) for phase in phases]
    assert told == begun + [(p, done, n) for p, n in zip(phases, sizes) for done in range(1, n + 1)]
    assert "parity.json" not in read_manifest(bundle).files
    assert str(bundle.parent) not in (bundle / "parity.json").read_text()


SCHEDULERS = {
    "ddim": DDIMScheduler(clip_sample=False),
    "ddim clipped": DDIMScheduler(),
    "ddpm": DDPMScheduler(),
    "sde-dpmsolver++": DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
    "karras": DPMSolverMultistepScheduler(use_karras_sigmas=True),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedulers_and_their_noise(exported: Export, tmp_path: Path, scheduler: Any) -> None:
    scheduler.save_pretrained(str(tmp_path / "other"))
    report = verify(exported(scheduler=tmp_path / "other"), steps=5, batch=3, seed=4)
    assert report.passed, report
    assert report.scheduler == type(scheduler).__name__


@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5])
def test_guidance_scales(bundle: Path, guidance: float) -> None:
    assert verify(bundle, steps=4, guidance=guidance).options["guidance"] == guidance


def test_text_conditions(
    conditional: Path, traced_conditional: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpmrt.export.network.trace", lambda *arguments, **options: traced_conditional.clone())
    bundle = export_bundle(conditional, tmp_path / "bundle")
    assert verify(bundle, steps=4).passed
    assert verify(bundle, steps=4, guidance=5.0).passed


def test_other_weights_fail(bundle: Path) -> None:
    with_other_weights(bundle)
    report = verify(bundle, steps=4)
    assert not report.passed
    assert report.drift is not None
    assert report.drift > 1e-2
    assert "trajectory: a relative drift of" in report.backends[0].failures[-1]
    result = CliRunner().invoke(command, [str(bundle), "--steps", "4"])
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "FAIL" in result.output
    recorded = read_parity(bundle)
    assert recorded is not None
    assert not recorded.passed


def test_command(bundle: Path) -> None:
    result = CliRunner().invoke(command, [str(bundle), "--steps", "4", "--no-write"])
    assert result.exit_code == 0, result.output
    sections = [line for line in result.stdout.splitlines() if line.startswith("===")]
    titles = ["Model", "Single calls", "Trajectory: onnxruntime", "Verdict"]
    assert sections == [f"=== {title} ===" for title in titles]
    assert "verdict:           PASS" in result.stdout
    assert "drift 0.0001" in result.stdout
    assert not (bundle / "parity.json").exists()
    assert not (bundle / "drift.png").exists()


def test_a_seed_that_is_none_is_explained_at_the_prompt(bundle: Path) -> None:
    result = CliRunner().invoke(command, [str(bundle), "--seed", "99999999999999999999"])
    assert isinstance(result.exception, OptionError)


def test_the_largest_seed(bundle: Path) -> None:
    assert verify(bundle, steps=2, seed=2**64 - 1).passed
    assert read_parity(bundle) is not None


def test_the_shipped_bundle_is_written_into_only_when_asked(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpmrt.engines.shipped._HERE", bundle.parent)
    assert verify(bundle, steps=2).passed
    result = CliRunner().invoke(command, [str(bundle), "--steps", "2"])
    assert result.exit_code == 0, result.output
    assert "parity.json was left as it is" in result.stdout
    assert not (bundle / "parity.json").exists()
    result = CliRunner().invoke(command, [str(bundle), "--steps", "2", "--write"])
    assert "left as it is" not in result.stdout
    assert (bundle / "parity.json").exists()
    assert verify(bundle, steps=3, write=True) == read_parity(bundle)


def test_help_has_examples() -> None:
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "Examples:\n    dpmrt verify engines/digits\n" in result.output


def test_a_bundle_that_was_moved_asks_for_its_source(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = bundle.rename(tmp_path / "elsewhere/bundle")
    with pytest.raises(VerificationError, match=r"is not there(.|\n)*pass --against SOURCE"):
        verify(moved, steps=4)
    assert verify(moved, steps=4, against=checkpoint).passed


def test_a_source_that_has_changed(bundle: Path, checkpoint: Path) -> None:
    shutil.rmtree(checkpoint / "unet")
    labelled_unet(seed=2).save_pretrained(str(checkpoint / "unet"))
    with pytest.raises(VerificationError, match=r"has changed since it was exported(.|\n)*SHA-256"):
        verify(bundle, steps=4)


def test_a_source_of_another_kind(bundle: Path, conditional: Path) -> None:
    with pytest.raises(VerificationError, match=r"takes other inputs(.|\n)*encoder_hidden_states"):
        verify(bundle, steps=4, against=conditional)


WRONG: dict[str, tuple[dict[str, Any], type[DpmrtError], str]] = {
    "batch": ({"batch": 0}, OptionError, "batch is out of range"),
    "steps": ({"steps": 0}, OptionError, "steps is out of range"),
    "tolerance": ({"tolerance": 0.0}, OptionError, "tolerance is out of range"),
    "not a number": ({"tolerance": float("nan")}, OptionError, "tolerance is out of range"),
    "endless tolerance": ({"tolerance": float("inf")}, OptionError, "tolerance is out of range(.|\n)*got: +inf"),
    "guidance": ({"guidance": float("nan")}, OptionError, "guidance is not a scale(.|\n)*got: +nan"),
    "seed": ({"seed": 99999999999999999999}, OptionError, r"seed must be(.|\n)*0 to 2\*\*64 - 1"),
    "negative seed": ({"seed": -1}, OptionError, "seed must be"),
    "backend": ({"backends": ["abacus"]}, OptionError, "unknown engine"),
    "source": ({"against": "nowhere"}, DpmrtError, "no model folder here"),
}


@pytest.mark.parametrize(("options", "kind", "text"), WRONG.values(), ids=WRONG)
def test_wrong_requests(bundle: Path, options: dict[str, Any], kind: type[DpmrtError], text: str) -> None:
    with pytest.raises(kind, match=text):
        verify(bundle, **options)
    assert not (bundle / "parity.json").exists()


def test_guidance_that_the_bundle_has_not(exported: Export, checkpoint: Path) -> None:
    (checkpoint / "training.json").unlink()
    bundle = exported()
    with pytest.raises(OptionError, match="the bundle has no guidance"):
        verify(bundle, guidance=2.0)
    assert verify(bundle, steps=4).passed


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        verify(tmp_path / "nowhere")


def test_a_full_disk_keeps_the_previous_report(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify(bundle, steps=4)
    before = (bundle / "parity.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"cannot write into(.|\n)*the disk is full(.|\n)*--no-write"):
            verify(bundle, steps=5)
    assert (bundle / "parity.json").read_bytes() == before
    assert sorted(os.listdir(bundle)) == ["dpmrt.json", "drift.png", "parity.json", "scheduler", "unet"]


def test_a_damaged_report_is_explained(bundle: Path) -> None:
    assert read_parity(bundle) is None
    report = json.loads(msgspec.json.encode(verify(bundle, steps=4)))
    (bundle / "parity.json").write_text(json.dumps({**report, "passed": "yes"}))
    with pytest.raises(BundleError, match=r"parity\.json cannot be read(.|\n)*\$\.passed(.|\n)*dpmrt verify BUNDLE"):
        read_parity(bundle)
    (bundle / "parity.json").write_text(json.dumps({**report, "version": 3}))
    with pytest.raises(BundleError, match=r"parity\.json: unknown `version`"):
        read_parity(bundle)
