"""Networks that learned their variance, as guided-diffusion has them: exported, verified, beside diffusers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from dpmrt.engines import Guidance, read_manifest, record_file, write_manifest
from dpmrt.errors import NonFiniteError
from dpmrt.export import export_bundle, verify
from dpmrt.runtime import calibrate, load
from dpmrt.runtime.cli import main

CHANNELS, CLASSES, SEED, STEPS = 3, 4, 5, 6
SHAPE = (2, CHANNELS, 8, 8)


def six_channels() -> Any:
    """Return a network of twice as many channels out as in, whose second half is not small."""
    torch.manual_seed(1)
    model = UNet2DModel(
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_class_embeds=CLASSES + 1,
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with torch.no_grad():
        model.conv_out.weight[CHANNELS:] *= 3.0
        model.class_embedding.weight *= 5.0
    return model.eval()


@pytest.fixture(scope="module")
def network() -> Any:
    return six_channels()


@pytest.fixture(scope="module")
def source(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("six") / "checkpoint"
    network.save_pretrained(str(folder / "unet"), safe_serialization=True)
    DDPMScheduler(variance_type="learned_range").save_pretrained(str(folder / "scheduler"))
    return folder


@pytest.fixture(scope="module")
def bundle(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    guidance = Guidance("classifier_free", CLASSES, CLASSES, 2.0)
    return export_bundle(source, tmp_path_factory.mktemp("six") / "bundle", guidance=guidance)


def with_scheduler(bundle: Path, folder: Path, scheduler: Any) -> Path:
    """Return a copy of a bundle that follows another scheduler; its files are hashed anew."""
    shutil.copytree(bundle, folder)
    manifest = read_manifest(folder)
    (folder / manifest.scheduler).write_text(scheduler.to_json_string())
    manifest.files[manifest.scheduler] = record_file(folder / manifest.scheduler)
    write_manifest(folder, manifest)
    return folder


Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def labelled(network: Any, labels: list[int]) -> Predict:
    return lambda x, t: network(x, t, class_labels=torch.tensor(labels), return_dict=False)[0]


def guided(network: Any, labels: list[int], scale: float) -> Predict:
    """Guide the prediction; the variance is that of the wanted half."""
    wanted, none = labelled(network, labels), labelled(network, [CLASSES] * len(labels))

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        given, null = wanted(x, t), none(x, t)
        mean = null[:, :CHANNELS] + scale * (given[:, :CHANNELS] - null[:, :CHANNELS])
        return torch.cat([mean, given[:, CHANNELS:]], dim=1)

    return predict


def beside(predict: Predict, scheduler: Any) -> np.ndarray:
    """Sample with a scheduler of diffusers from the seed's noise."""
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(SHAPE, generator=generator)
    scheduler.set_timesteps(STEPS)
    with torch.inference_mode():
        for t in scheduler.timesteps:
            x = scheduler.step(predict(x, t), t, x, generator=generator).prev_sample
    return np.asarray(x.numpy())


def by_the_paper(predict: Predict, times: list[int]) -> np.ndarray:
    """Sample with the variance of Nichol and Dhariwal 2021, eq. 15, whose v is (output + 1) / 2."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas_bar = torch.cumprod(1 - betas, 0)
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(SHAPE, generator=generator)
    with torch.inference_mode():
        for t, before in zip(times, [*times[1:], None]):
            eps, v = predict(x, torch.tensor(t)).split(CHANNELS, dim=1)
            bar, bar_before = alphas_bar[t], alphas_bar[before] if before is not None else torch.tensor(1.0)
            beta = 1 - bar / bar_before
            x0 = (x - (1 - bar).sqrt() * eps) / bar.sqrt()
            mean = (bar_before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - bar_before) * x) / (1 - bar)
            if before is None:
                return np.asarray(mean.float().numpy())
            tilde = (1 - bar_before) / (1 - bar) * beta
            part = (v + 1) / 2
            log_variance = part * beta.log() + (1 - part) * tilde.log()
            x = (mean + (log_variance / 2).exp() * torch.randn(SHAPE, generator=generator)).float()
    raise AssertionError("no times")


def close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_the_manifest_says_so(bundle: Path) -> None:
    network = read_manifest(bundle).unet
    assert network.sample_shape == (CHANNELS, 8, 8)
    (out,) = network.outputs
    assert out.shape[1] == 2 * CHANNELS
    assert network.learned_channels == CHANNELS
    shown = CliRunner().invoke(main, ["inspect", str(bundle)]).stdout
    assert "learned variance   the last 3 channels of the output" in shown


CASES: dict[str, tuple[dict[str, Any], Callable[[Any], Predict]]] = {
    "no class": ({}, lambda network: labelled(network, [CLASSES] * 2)),
    "classes": ({"label": [0, 3], "guidance": 1.0}, lambda network: labelled(network, [0, 3])),
    "guided": ({"label": [0, 3], "guidance": 4.0}, lambda network: guided(network, [0, 3], 4.0)),
}


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Iterator[Any]:
    with load(bundle) as opened:
        yield opened


@pytest.mark.parametrize("case", CASES)
def test_the_bundle_s_scheduler_draws_with_the_learned_variance(pipeline: Any, network: Any, case: str) -> None:
    asked, predict = CASES[case]
    got = pipeline.sample(2, seed=SEED, steps=STEPS, **asked)
    close(got, beside(predict(network), DDPMScheduler(variance_type="learned_range")))
    fixed = pipeline.sample(2, seed=SEED, steps=STEPS, variance_type="fixed_small", **asked)
    assert np.abs(got - fixed).max() > 0.05


@pytest.mark.parametrize("case", CASES)
def test_so_does_ddpm_by_name_as_the_paper_writes_it(pipeline: Any, network: Any, case: str) -> None:
    asked, predict = CASES[case]
    got = pipeline.sample(2, seed=SEED, steps=STEPS, solver="ddpm", variance="learned_range", **asked)
    times = [int(t) for t in pipeline.plan(STEPS, "ddpm").timesteps]
    close(got, by_the_paper(predict(network), times))


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_ddim_leaves_it_unread(bundle: Path, network: Any, tmp_path: Path, case: str, eta: float) -> None:
    asked, predict = CASES[case]
    whole = predict(network)
    scheduler = DDIMScheduler(clip_sample=False)
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(SHAPE, generator=generator)
    scheduler.set_timesteps(STEPS)
    with torch.inference_mode():
        for t in scheduler.timesteps:
            x = scheduler.step(whole(x, t)[:, :CHANNELS], t, x, eta=eta, generator=generator).prev_sample
    with load(with_scheduler(bundle, tmp_path / "ddim", scheduler)) as pipeline:
        close(pipeline.sample(2, seed=SEED, steps=STEPS, eta=eta, **asked), x.numpy())


def test_a_variance_that_the_network_gives_as_it_is(bundle: Path, network: Any, tmp_path: Path) -> None:
    """A second half above zero is a variance by itself; one below zero is the network's fault, and said to be."""
    scheduler = DDPMScheduler(variance_type="learned")
    own = with_scheduler(bundle, tmp_path / "own", scheduler)
    with load(own) as pipeline, pytest.raises(NonFiniteError, match="second part"):
        pipeline.sample(2, seed=SEED, steps=STEPS)
    inner = labelled(network, [CLASSES] * 2)

    def positive(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        eps, v = inner(x, t).split(CHANNELS, dim=1)
        return torch.cat([eps, v.square() / 50], dim=1)

    def function(sample: np.ndarray, timestep: np.ndarray, class_labels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(positive(torch.from_numpy(sample), torch.from_numpy(timestep)).numpy())

    with load(own, "numpy", function=function) as pipeline:
        close(pipeline.sample(2, seed=SEED, steps=STEPS), beside(positive, scheduler))


def test_the_certificate_passes(bundle: Path) -> None:
    for guidance in (None, 4.0):
        report = verify(bundle, steps=4, guidance=guidance, write=False, plot=False)
        assert report.scheduler == "DDPMScheduler"
        assert report.passed, report.backends[0].failures


def test_the_analytic_variance_serves_it_too(bundle: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(bundle, tmp_path / "own"))
    data = np.random.default_rng(0).uniform(-1, 1, (8, *SHAPE[1:])).astype(np.float32)
    found = calibrate(own, data, samples=8, steps=5)
    assert len(found.power) == 5
    with load(own) as pipeline:
        plan = pipeline.plan(STEPS, "ddpm", variance="analytic")
        assert plan.parts == 1
        assert np.isfinite(pipeline.sample(2, plan=plan)).all()
