"""`dpmrt export`: what it prints, what it leaves, how it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_networks import listing

from dpmrt.engines import read_manifest
from dpmrt.errors import DpmrtError, ExportError, MissingExtraError
from dpmrt.export.cli.export import command


def test_export(traced_once: None, checkpoint: Path) -> None:
    bundle = checkpoint.parent / "bundle"
    result = CliRunner().invoke(command, [str(checkpoint), "-o", str(bundle), "--name", "digits"])
    assert result.exit_code == 0, result.output
    assert read_manifest(bundle).name == "digits"
    for text in ("parameters", "18,873", "ONNX size", "MB", "class_labels: int64 (batch)", "error against torch"):
        assert text in result.stdout
    assert "Tracing it to ONNX" in result.stderr
    assert "Tracing" not in result.stdout


def test_dry_run_writes_nothing(checkpoint: Path) -> None:
    before = listing(checkpoint.parent)
    result = CliRunner().invoke(command, [str(checkpoint), "-o", str(checkpoint.parent / "a/bundle"), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "Nothing was written" in result.output
    assert "sample: float32 (batch, 1, 8, 8)" in result.output
    assert "unet/model.onnx" in result.output
    assert listing(checkpoint.parent) == before
    assert not (checkpoint.parent / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere", "-o", "bundle"], "no model folder here"),
        (["nowhere", "-o", "bundle", "--dry-run"], "no model folder here"),
        (["checkpoint", "-o", "bundle", "--precision", "int4"], "unknown precision"),
        (["checkpoint", "-o", "bundle", "--precision", "int4", "--dry-run"], "unknown precision"),
        (["checkpoint", "-o", "bundle", "--scheduler", "nowhere", "--dry-run"], "the scheduler is missing"),
        (["checkpoint", "-o", "checkpoint", "--force"], "the target holds something else"),
    ],
)
def test_failures(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str) -> None:
    monkeypatch.chdir(checkpoint.parent)
    before = listing(checkpoint.parent)
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, DpmrtError)
    assert text in str(result.exception)
    assert listing(checkpoint.parent) == before


def test_a_defect_of_the_source_is_explained(checkpoint: Path) -> None:
    (checkpoint / "unet/config.json").write_text("{}")
    result = CliRunner().invoke(command, [str(checkpoint), "-o", str(checkpoint.parent / "bundle")])
    assert isinstance(result.exception, ExportError)


@pytest.fixture
def ignoring_sigterm() -> Iterator[None]:
    """Let a command that forgets its guard fail its test instead of ending all of them."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


def test_terminated(
    ignoring_sigterm: None, traced_once: None, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr("dpmrt.export.network.compare_onnx", killed)
    result = CliRunner().invoke(command, [str(checkpoint), "-o", str(checkpoint.parent / "bundle")])
    assert result.exit_code == 1
    assert os.listdir(checkpoint.parent) == ["checkpoint"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_missing_arguments_are_usage_errors() -> None:
    assert CliRunner().invoke(command, []).exit_code == 2
    assert CliRunner().invoke(command, ["source"]).exit_code == 2


def test_help_has_examples() -> None:
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "Examples:\n    dpmrt export engines/checkpoints/digits-unet -o engines/digits\n" in result.output


def test_without_torch(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpmrt.export.extras.find_spec", lambda name: None if name == "onnxscript" else sys)
    result = CliRunner().invoke(command, [str(checkpoint), "-o", "bundle"])
    assert isinstance(result.exception, MissingExtraError)
    assert "pip install 'dpmrt[export]'" in str(result.exception)
    assert "no onnxscript" in str(result.exception)
