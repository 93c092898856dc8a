"""What breaks in half precision is found, pinned to fp32, and reported; what cannot be mended is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from half_graphs import KINDS, Formula, guarded
from onnxscript import ir
from safetensors.torch import load_file, save_file
from tiny_networks import listing

from dpmrt.engines import read_manifest, shipped_bundle
from dpmrt.errors import ExportError
from dpmrt.export import export_bundle
from dpmrt.export.onnx_files import session_of
from dpmrt.runtime import load
from dpmrt.runtime.cli import main

BROKEN = "down_blocks.1.resnets.0"
HALF_FILES = [
    "dpmrt.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "unet/emulated.onnx",
    "unet/model.onnx",
    "unet/model.onnx_data",
    "unet/weights.json",
]
Export = Callable[..., Path]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits with one convolution beyond fp16, whose output goes into a normalisation."""
    digits = shipped_bundle("digits").parent / "checkpoints/digits-unet"
    folder = Path(shutil.copytree(digits, tmp_path_factory.mktemp("large") / "checkpoint"))
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    for layer in ("conv1", "time_emb_proj"):
        for part in ("weight", "bias"):
            weights[f"{BROKEN}.{layer}.{part}"] *= 30000
    save_file(weights, path)
    return folder


@pytest.fixture(scope="module")
def mended(large: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(large, tmp_path_factory.mktemp("mended") / "bundle", precision="fp16")


def final_error(bundle: Path) -> float:
    with load(bundle, engine="emulated") as pipeline:
        got = pipeline.sample(4, seed=3, label=[0, 1, 2, 3], guidance=2.0)
    with load("digits") as pipeline:
        exact = pipeline.sample(4, seed=3, label=[0, 1, 2, 3], guidance=2.0)
    return float(np.abs(got - exact).max())


def test_without_a_guard_it_overflows(large: Path, tmp_path: Path) -> None:
    bundle = export_bundle(large, tmp_path / "bundle", precision="fp16", guarded=False)
    manifest = read_manifest(bundle, check=True)
    assert manifest.unet.precision.pinned == ()
    assert "calibration_psnr" not in manifest.provenance
    session = session_of(bundle / "unet/emulated.onnx")
    feeds = {"sample": np.ones((1, 1, 16, 16), np.float32), "timestep": np.array([500], np.float32)}
    assert not np.isfinite(session.run(None, {**feeds, "class_labels": np.array([3])})[0]).all()


def test_an_overflowing_convolution_is_pinned(mended: Path) -> None:
    manifest = read_manifest(mended, check=True)
    pins = {pin.node: pin.why for pin in manifest.unet.precision.pinned}
    assert f"{BROKEN}.conv1/Conv" in pins
    # Its reader adds the projected time, which overflows itself, and is read by a normalisation in fp32 anyway.
    assert all(name.startswith(BROKEN) for name in pins)
    assert len(pins) < 8
    found = re.fullmatch(r"reaches (\S+), and half holds 65504", pins[f"{BROKEN}.conv1/Conv"])
    assert found
    assert float(found[1]) > 65504
    assert any(why.startswith(f"reads {BROKEN}.conv1/Conv, which reaches {found[1]},") for why in pins.values())
    psnr = manifest.provenance["calibration_psnr"]
    assert isinstance(psnr, float)
    assert psnr >= 40
    assert final_error(mended) < 0.1


def test_pins_are_shown_by_inspect(mended: Path) -> None:
    result = CliRunner().invoke(main, ["inspect", str(mended)])
    assert result.exit_code == 0
    count = len(read_manifest(mended).unet.precision.pinned)
    assert f"fp16, {count} nodes pinned to fp32" in result.output
    assert f"{BROKEN}.conv1/Conv" in result.output
    assert "and half holds 65504" in " ".join(result.output.split())


def test_what_was_tried_is_gone(mended: Path) -> None:
    assert listing(mended) == HALF_FILES


def test_pinned_nodes_compute_in_fp32(mended: Path) -> None:
    graph = ir.load(mended / "unet/model.onnx").graph
    pins = {pin.node for pin in read_manifest(mended).unet.precision.pinned}
    types = {node.outputs[0].dtype for node in graph if node.name in pins}
    assert types == {ir.DataType.FLOAT}
    assert pins <= {node.name for node in graph}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_from_end_to_end(exported: Export, kind: str) -> None:
    told: list[str] = []
    bundle = exported(precision=kind, progress=lambda phase, text="": told.append(f"{phase} {text}"))
    assert listing(bundle) == HALF_FILES
    manifest = read_manifest(bundle, check=True)
    assert manifest.unet.precision.kind == kind
    assert manifest.unet.precision.emulated == "unet/emulated.onnx"
    assert any(re.fullmatch(r"guard round 1: \d+\.\d dB, 0 nodes pinned", text) for text in told)
    with load(bundle, engine="emulated") as pipeline:
        assert np.isfinite(pipeline.sample(2, seed=0, label=[1, 2], steps=3)).all()


def test_one_time_and_fixed_batch(pristine: Path, tmp_path: Path) -> None:
    bundle = export_bundle(pristine, tmp_path / "bundle", precision="fp16", sizes={"batch": 3}, one_time=True)
    assert read_manifest(bundle, check=True).unet.inputs[1].shape == ()


@pytest.mark.parametrize("broken", ["dpmrt.export.network.guard", "onnxscript.ir.save"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_export_leaves_what_was_there(
    exported: Export, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, broken: str, error: BaseException
) -> None:
    bundle = exported(precision="bf16", guarded=False)
    before = {name: (bundle / name).read_bytes() for name in HALF_FILES}
    left = sorted(path.name for path in checkpoint.parent.iterdir())

    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(broken, fail)
    with pytest.raises((KeyboardInterrupt, OSError, ExportError)):
        exported(precision="fp16", force=True)
    assert {name: (bundle / name).read_bytes() for name in listing(bundle)} == before
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == left


def test_a_network_that_is_lost_in_fp32(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        guarded(Formula(lambda x: torch.log(-1 - x.abs())), tmp_path)
    assert str(caught.value).splitlines() == [
        "the network gives no finite numbers even in fp32",
        "  got:      NaN or infinity at t = 750",
        "  expected: finite numbers on the calibration trajectory",
        "  fix:      look at the weights and the scheduler, or pass --no-guard",
    ]


def test_a_checkpoint_that_is_lost_in_torch(checkpoint: Path) -> None:
    path = checkpoint / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_out.weight"] = torch.full_like(weights["conv_out.weight"], 3e38)
    save_file(weights, path)
    with pytest.raises(ExportError, match=r"no finite numbers in torch(.|\n)*of 64 that are NaN or infinite"):
        export_bundle(checkpoint, checkpoint.parent / "bundle", precision="fp16")
    assert not (checkpoint.parent / "bundle").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_drift_is_pinned_where_it_arises(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    told: list[str] = []
    layers = [torch.nn.Conv2d(2, 2, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(2, 2, 3, padding=1)]
    network = Formula(lambda x: (layered(x) + 3000) - 3000)
    network.layers = layered = torch.nn.Sequential(*layers)
    result = guarded(network, tmp_path, kind, tell=told.append)
    heights = [float(re.findall(r"(\S+) dB", text)[0]) for text in told]
    assert heights[0] < {"fp16": 40, "bf16": 30}[kind] <= heights[-1] == pytest.approx(result.psnr, abs=0.06)
    pins = {pin.node: pin.why for pin in result.pins}
    assert next(iter(pins)) == "Sub"
    assert "Add" in pins
    assert all("adds a relative error of" in why for why in pins.values())


def test_demanding_more_pins_more(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(*(torch.nn.Conv2d(2, 2, 3, padding=1) for _ in range(12)))
    formula = Formula(lambda x: network(x))
    formula.network = network
    free = guarded(formula, tmp_path)
    strict = guarded(formula, tmp_path, least=free.psnr + 3)
    assert free.pins == ()
    assert 0 < len(strict.pins) < 13
    assert strict.psnr >= free.psnr + 3


def test_too_much_asked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Formula(lambda x: inner(x))
    network.inner = inner = torch.nn.Sequential(*(torch.nn.Conv2d(2, 2, 3, padding=1) for _ in range(12)))
    with pytest.raises(ExportError) as caught:
        guarded(network, tmp_path, least=1000.0)
    what, got, expected, fix = str(caught.value).splitlines()
    assert what == "the network does not hold in fp16"
    assert re.fullmatch(r"  got:      \d+\.\d dB from fp32 with \d+ of \d+ nodes kept in fp32", got)
    assert expected == "  expected: at least 1000 dB"
    assert fix == "  fix:      export in bf16 or fp32"


def scores(x: torch.Tensor) -> torch.Tensor:
    rows = x.flatten(2)
    weights = torch.softmax((rows * 700) @ (rows * 700).transpose(1, 2) * 1e-8, dim=-1)
    return 0.1 * x + (weights @ rows).reshape(x.shape)


def summed(x: torch.Tensor) -> torch.Tensor:
    total = (200 * x).square().sum(dim=(1, 2, 3), keepdim=True)
    return x + torch.sigmoid(total * 1e-4)


def streamed(x: torch.Tensor) -> torch.Tensor:
    stream = 20000 * x
    for _ in range(6):
        stream = stream + 10000 * torch.tanh(stream * 1e-4)
    return torch.nn.functional.group_norm(stream, 1)


def normalised(x: torch.Tensor) -> torch.Tensor:
    nothing = torch.relu(x - 100)
    return x + nothing / nothing.amax(dim=(2, 3), keepdim=True).clamp_min(1e-12)


def masked(x: torch.Tensor) -> torch.Tensor:
    rows = x.flatten(2)
    mask = (1 - (rows > 0).float()) * torch.finfo(torch.float32).min
    return x + torch.softmax(rows + mask, dim=-1).reshape(x.shape)


def moved(x: torch.Tensor) -> torch.Tensor:
    both = torch.cat([90000 * x, x], dim=1).transpose(2, 3).reshape(x.shape[0], 2, 16, 8)
    return torch.nn.functional.group_norm(both, 1)[:, :, :8] + x


def many(x: torch.Tensor) -> torch.Tensor:
    total = x
    for size in range(40):
        total = total + (x * (30000 + 100 * size)) * 1e-6
    return total


@pytest.mark.parametrize("formula", [scores, summed, streamed, normalised, masked, moved, many])
def test_what_is_known_to_break_fp16(formula: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
    rounds: list[str] = []
    result = guarded(Formula(formula), tmp_path, tell=rounds.append)
    assert result.psnr >= 40
    assert len(rounds) < 8
    assert result.pins or formula is masked


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_beyond_half(kind: str, tmp_path: Path) -> None:
    network = Formula(lambda x, level: x + torch.sigmoid(level * 1e-4))
    result = guarded(network, tmp_path, kind, level=1e6)
    whys = [pin.why for pin in result.pins]
    assert all(re.fullmatch(r"reads `level`, which reaches \S+e\+05, and half holds 65504", why) for why in whys)
    assert len(whys) == (1 if kind == "fp16" else 0)


def test_a_call_between_those_looked_at(tmp_path: Path) -> None:
    """Overflow at one time only, in the second of four calls, which is not among those measured as a rule."""
    network = Formula(lambda x: x)
    network.forward = lambda sample, timestep: (  # type: ignore[method-assign]
        sample + 1e-6 * (sample.sign() * 2e5 * torch.exp(-((timestep - 500) / 20).square())[:, None, None, None])
    )
    result = guarded(network, tmp_path)
    assert result.pins
    assert result.psnr >= 40


def test_the_same_trace_gives_the_same_pins(large: Path, mended: Path, tmp_path: Path) -> None:
    again = export_bundle(large, tmp_path / "bundle", precision="fp16")
    assert read_manifest(again).unet.precision == read_manifest(mended).unet.precision
    names = ("unet/model.onnx", "unet/model.onnx_data", "unet/emulated.onnx")
    assert all((again / name).read_bytes() == (mended / name).read_bytes() for name in names)
