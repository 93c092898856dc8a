"""Conditions, shapes and the widened manifest on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_bundles import Make
from tiny_conditioned import save_graph, write_conditioned, write_tiny_manifest

from dpmrt.engines import Axis, Network, Pin, Precision, TensorSpec
from dpmrt.runtime import cli, load, open_bundle

CONDITIONS: dict[str, Any] = {
    "encoder_hidden_states": ("float32", ("batch", "tokens", 3)),
    "text_embeds": ("float32", ("batch", 5)),
}
AXES = {"height": Axis(opt=8, min=8, max=32, multiple=8), "width": Axis(opt=8)}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "text.npy", rng.standard_normal((2, 7, 3)).astype(np.float32))
    np.save(tmp_path / "pooled.npy", rng.standard_normal((1, 5)))
    np.save(tmp_path / "empty.npy", np.zeros((1, 7, 3), np.float32))
    return write_conditioned(tmp_path / "bundle", conditions=CONDITIONS, axes=AXES)


def conditions(folder: Path) -> list[str]:
    here = folder.parent
    text, pooled = f"encoder_hidden_states={here / 'text.npy'}", f"text_embeds={here / 'pooled.npy'}"
    return ["--condition", text, "--condition", pooled]


def test_conditions_negatives_and_a_shape_reach_the_pipeline(folder: Path, tmp_path: Path) -> None:
    away = f"encoder_hidden_states={tmp_path / 'empty.npy'}"
    arguments = [*conditions(folder), "--negative", away, "--guidance", 3, "--shape", "4,16,8"]
    result = run("sample", folder, "-o", tmp_path / "a.npy", *arguments)
    assert result.exit_code == 0, result.output
    given = {
        "encoder_hidden_states": np.load(tmp_path / "text.npy"),
        "text_embeds": np.load(tmp_path / "pooled.npy"),
    }
    with load(folder) as pipeline:
        expected = pipeline.sample(
            2,
            shape=(4, 16, 8),
            guidance=3,
            conditions=given,
            negative={"encoder_hidden_states": np.load(tmp_path / "empty.npy")},
        )
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)


WRONG: dict[str, tuple[list[object], list[str]]] = {
    "no file": (["--condition", "text_embeds"], ["--condition names no file", "NAME=FILE.npy"]),
    "no name": (["--negative", "=a.npy"], ["--negative names no file", "NAME=FILE.npy"]),
    "twice": (
        ["--condition", "a=x.npy", "--condition", "a=y.npy"],
        ["--condition a is given twice", "a=y.npy", "each name once"],
    ),
    "not there": (["--condition", "text_embeds=none.npy"], ["--condition text_embeds cannot be read", "none.npy"]),
    "pickled": (["--condition", "text_embeds=pickled.npy"], ["--condition text_embeds cannot be read"]),
    "many arrays": (["--condition", "text_embeds=two.npz"], ["--condition text_embeds is no single array"]),
    "missing": ([], ["conditioned on text, whose encoding is missing", "--condition encoder_hidden_states=FILE.npy"]),
    "over the output": (
        ["--condition", "text_embeds=a.npy"],
        ["--out and --condition text_embeds are one file", "rename one of them"],
    ),
    "shape": (["--shape", "4x8x8"], ["--shape is no shape of a sample", "as --shape 4,64,96"]),
    "shape of nothing": (["--shape", "4,0,8"], ["shape[1] is out of range"]),
    "size": (["--shape", "4,12,8"], ["height = 12", "height = 8 to 32, in multiples of 8"]),
    "own option": (["--option", "conditions=1"], ["conditions cannot be given as --option", "use --condition"]),
    "own shape": (["--option", "shape=1"], ["shape cannot be given as --option", "use --shape"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_one_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    arguments, texts = WRONG[case]
    result = run("sample", folder, "-o", "a.npy", *arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    for text in texts:
        assert text in result.stderr
    assert not (tmp_path / "a.npy").exists()


def test_help_shows_conditions() -> None:
    shown = run("sample", "--help").output
    assert "--condition NAME=FILE" in shown
    assert "--negative encoder_hidden_states=empty.npy" in shown


def test_inspect_shows_all_of_a_wide_manifest(tmp_path: Path) -> None:
    root = write_conditioned(
        tmp_path / "b",
        sample=("batch", 3, 9, "height", "width"),
        channels=4,
        axis=2,
        conditions=CONDITIONS,
        folded=True,
        axes=AXES,
        manifest=False,
    )
    inputs = (
        TensorSpec("sample", "sample", "float32", ("batch", 4, 8)),
        TensorSpec("timestep", "timestep", "float32", ("batch",)),
        TensorSpec("class_labels", "class_labels", "int64", ("batch",)),
    )
    outputs = (TensorSpec("gradient", "out_sample", "float32", ("batch", 4, 8)),)
    save_graph(root / "classifier/model.onnx", inputs, outputs, {"class_labels": ("int64", ("batch",))}, 1, False)
    (root / "unet/emulated.onnx").write_bytes((root / "unet/model.onnx").read_bytes())
    foreign = open_bundle(root).manifest.unet
    network = Network(
        foreign.path,
        foreign.inputs,
        foreign.outputs,
        axes=AXES,
        channel_axis=2,
        precision=Precision("bf16", (Pin("/out/Conv", "drift 0.2 without"),), "unet/emulated.onnx"),
    )
    write_tiny_manifest(root, network, classifier=Network("classifier/model.onnx", inputs, outputs))
    result = run("inspect", root)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    size = f"{(root / 'unet/model.onnx').stat().st_size:,} bytes"
    for line in (
        "precision bf16, 1 node pinned to fp32",
        "emulated by unet/emulated.onnx",
        "/out/Conv drift 0.2 without",
        "extra channels 5, given as the condition extra_channels",
        "channels on axis 2",
        "guidance by scale and negative conditions, folded into the graph",
        "height 8 to 32, in multiples of 8; 8 mostly",
        "width 1 or more; 8 mostly",
        "text_embeds float32 [batch, 5]",
        "gradient float32 [batch, 4, 8] named out_sample",
        "parameters 4, counted in the graph",
        f"on disk {size}",
        "verified not yet",
    ):
        assert line in lines, result.output


def test_inspect_shows_the_last_verification(make_bundle: Make) -> None:
    assert " passed, 2026-" in run("inspect", "digits").output
    root = make_bundle()
    (root / "parity.json").write_text("{}")
    result = run("inspect", root)
    assert result.exit_code == 0
    assert "unknown: parity.json cannot be read" in result.output
