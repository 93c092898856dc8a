"""The exported product v^T J is torch.autograd's, and gives a bundle exact likelihoods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import vjp_factories
from click.testing import CliRunner
from diffusers import UNet2DModel
from onnxscript import ir
from scipy.integrate import solve_ivp
from tiny_networks import listing, save_scheduler

from dpmrt.engines import read_manifest
from dpmrt.errors import ExportError, ManifestError, OptionError
from dpmrt.export import export_bundle
from dpmrt.export.bundle import phases
from dpmrt.export.factory import load_factory
from dpmrt.export.sources import Source, source_of_model
from dpmrt.export.vjp import check_vjp, export_vjp
from dpmrt.runtime import load
from dpmrt.runtime.cli import main
from dpmrt.solvers_np import schedule_from_diffusers

CHANNELS = {"plain": (2, 2), "variance": (2, 4), "painted": (5, 2), "sampled": (2, 2)}


def source(name: str) -> Source:
    return load_factory(f"vjp_factories:{name}", vjp_factories.spec(*CHANNELS[name]))


def run(path: Path, **inputs: torch.Tensor) -> list[torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(["vjp", "out_sample"], {name: tensor.numpy() for name, tensor in inputs.items()})
    return [torch.from_numpy(array) for array in found]


def jacobian(forward: Any, x: torch.Tensor) -> torch.Tensor:
    """Return d out / d x of one sample as a matrix."""
    whole = torch.autograd.functional.jacobian(lambda flat: forward(flat.view_as(x)).flatten(), x.flatten())
    return whole.detach()


@pytest.fixture(scope="module")
def unet() -> Source:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet2DModel(
            sample_size=4,
            in_channels=1,
            out_channels=1,
            num_class_embeds=5,
            layers_per_block=1,
            block_out_channels=(4,),
            norm_num_groups=2,
            attention_head_dim=4,
            down_block_types=("AttnDownBlock2D",),
            mid_block_type=None,
            up_block_types=("UpBlock2D",),
        )
    return source_of_model(model)


def test_the_product_of_a_unet_with_every_vector_is_torch_s(unet: Source, tmp_path: Path) -> None:
    network = export_vjp(unet, tmp_path)
    assert network.path == "vjp/model.onnx"
    assert [spec.role for spec in network.inputs] == ["sample", "timestep", "class_labels", "cotangent"]
    assert [spec.role for spec in network.outputs] == ["vjp", "out_sample"]
    generator = torch.Generator().manual_seed(3)
    x, t, label = torch.randn(1, 1, 4, 4, generator=generator), torch.tensor([417.5]), torch.tensor([2])

    def forward(sample: torch.Tensor) -> torch.Tensor:
        return unet.model(sample, t, label).sample

    # one row for each basis vector, so that the batch differs from what was traced and checked
    product, out = run(
        tmp_path / network.path,
        sample=x.expand(16, 1, 4, 4).contiguous(),
        timestep=t.expand(16).contiguous(),
        class_labels=label.expand(16).contiguous(),
        cotangent=torch.eye(16).view(16, 1, 4, 4),
    )
    exact = jacobian(forward, x)
    assert float((product.view(16, 16) - exact).norm() / exact.norm()) < 1e-5
    assert float((out[:1] - forward(x)).norm() / out[:1].norm()) < 1e-5
    operators = {node.op_type for node in onnx.load(tmp_path / network.path).graph.node}
    assert not {name for name in operators if name.startswith(("Scatter", "Random", "If", "Loop"))}


@pytest.mark.parametrize("name", ["variance", "painted"])
def test_variance_and_extra_channels_are_no_part_of_the_product(name: str, tmp_path: Path) -> None:
    made = source(name)
    network = export_vjp(made, tmp_path)
    taken, given = CHANNELS[name]
    assert network.sample_shape == (2, 4, 4)
    x, t = torch.randn(3, taken, 4, 4), torch.tensor([1.0, 500.0, 999.0])
    v = torch.randn(3, 2, 4, 4)
    product, out = run(tmp_path / network.path, sample=x, timestep=t, cotangent=v)
    assert out.shape == (3, given, 4, 4)
    for row in range(3):
        whole = jacobian(lambda flat, row=row: made.model(flat, t[row : row + 1]), x[row : row + 1])
        own = whole.view(given, 16, taken, 16)[:2, :, :2, :].reshape(32, 32)
        np.testing.assert_allclose(product[row].flatten(), v[row].flatten() @ own, atol=1e-5)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    scheduler = save_scheduler(folder)
    return export_bundle(source("plain"), folder / "plain", scheduler=scheduler, vjp=True)


def test_a_bundle_lists_the_graph_and_inspect_shows_it(bundle: Path) -> None:
    assert "vjp/model.onnx" in listing(bundle)
    manifest = read_manifest(bundle)
    assert manifest.vjp is not None
    assert manifest.vjp.path in manifest.files
    told = CliRunner().invoke(main, ["inspect", str(bundle)]).output
    assert "vector-Jacobian product\n  network     vjp/model.onnx" in told
    assert "cotangent" in told


def test_the_manifest_is_read_strictly(bundle: Path, tmp_path: Path) -> None:
    import shutil

    from dpmrt.errors import IntegrityError

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    fields = json.loads((copy / "dpmrt.json").read_text())
    for change, text in (
        (lambda f: f["vjp"]["inputs"].pop(), "`vjp.inputs` has the wrong roles"),
        (lambda f: f["vjp"]["outputs"].pop(0), "`vjp.outputs` has the wrong roles"),
        (lambda f: f["vjp"].update(path="vjp/other.onnx"), "`vjp.path` names a file without a record"),
        (lambda f: f["vjp"].update(path="../model.onnx"), "a path leaves the bundle"),
        (lambda f: f["unet"]["inputs"].append({**f["unet"]["inputs"][1], "role": "fps"}), "not those of the network"),
    ):
        changed = json.loads(json.dumps(fields))
        change(changed)  # type: ignore[no-untyped-call]
        (copy / "dpmrt.json").write_text(json.dumps(changed))
        with pytest.raises(ManifestError) as caught:
            read_manifest(copy)
        assert text in str(caught.value)
    (copy / "dpmrt.json").write_text(json.dumps(fields))
    (copy / "vjp/model.onnx").write_bytes((copy / "vjp/model.onnx").read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"vjp/model.onnx was altered"):
        read_manifest(copy)


def test_the_likelihood_of_the_exported_network_is_torch_s(bundle: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (2, 2, 4, 4))
    with load(bundle) as pipeline:
        found = pipeline.log_likelihood(x.astype(np.float32), rtol=1e-5, atol=1e-5, seed=5)
        schedule = schedule_from_diffusers(pipeline.bundle.scheduler_config)
    v = torch.tensor(np.where(np.random.default_rng([5, 0]).standard_normal((1, 2, 2, 4, 4))[0] < 0, -1.0, 1.0))
    model = vjp_factories.plain().double()

    def field(lambda_: float, y: np.ndarray) -> np.ndarray:
        level = schedule.level(lambda_)
        state = torch.tensor(y[:64].reshape(2, 2, 4, 4), requires_grad=True)
        eps = model(state, torch.full((2,), level.t, dtype=torch.float64))
        drift = level.sigma**2 * state - level.sigma * eps
        (row,) = torch.autograd.grad((drift * v).sum(), state)
        return np.append(drift.detach().numpy().reshape(-1), (row * v).sum(dim=(1, 2, 3)).numpy())

    alpha = float(schedule.alpha(0))
    span = [float(schedule.lambda_(t)) for t in (0.0, schedule.t_max)]
    begun = np.append(alpha * x.astype(np.float32), np.zeros(2))
    peer = solve_ivp(field, span, begun, rtol=1e-6, atol=1e-6).y[:, -1]
    noise = peer[:64].reshape(2, 32)
    expected = -0.5 * (noise**2).sum(1) - 16 * np.log(2 * np.pi) + peer[64:] + 32 * np.log(alpha)
    np.testing.assert_allclose(found.log_p, expected, atol=5e-3)


def test_what_cannot_have_a_product_is_refused_before_tracing(tmp_path: Path) -> None:
    made = source("plain")
    for precision, folded in (("fp16", False), ("bf16", False), ("fp32", True)):
        with pytest.raises(OptionError, match="exported in fp32 for the network as it is"):
            check_vjp(made, precision, folded)
    from tiny_factories import SPEC

    sequences = load_factory("tiny_factories:make", SPEC)
    with pytest.raises(OptionError, match="exported for one size of the samples") as caught:
        check_vjp(sequences, "fp32", False)
    assert "--axis length=16" in str(caught.value)
    check_vjp(sequences.shaped({"length": 16}), "fp32", False)
    checkpoint = Path(__file__).parents[2] / "engines/checkpoints/digits-unet"
    asked = ["export", str(checkpoint), "-o", str(tmp_path / "b"), "--vjp", "--dry-run", "--precision", "fp16"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 1
    assert "exported in fp32" in done.output
    assert phases("fp32", vjp=True)[-2:] == ("vjp", "hash")


def test_an_operator_without_a_gradient_in_onnx_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="an operator's gradient cannot be exported") as caught:
        export_vjp(source("sampled"), tmp_path)
    assert "grid_sampler_2d_backward" in str(caught.value)
    assert "this part of the network" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_is_not_torch_s_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpmrt.export.vjp.trace_vjp", lambda _: ir.load(bundle / "vjp/model.onnx"))
    other = source("plain")
    other.model.leave.weight.mul_(1.01)
    with pytest.raises(ExportError, match="the exported vector-Jacobian product is not that of torch") as caught:
        export_vjp(other, tmp_path)
    assert "a relative error of" in str(caught.value)
    (tmp_path / "vjp").mkdir()
    with pytest.raises(ExportError, match="a vector-Jacobian graph is there already"):
        export_vjp(other, tmp_path)
    (tmp_path / "vjp").rmdir()
    assert list(tmp_path.iterdir()) == []
