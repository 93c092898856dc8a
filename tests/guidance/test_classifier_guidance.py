"""Classifier guidance through a bundle's exported gradient, against torch with autograd in float64."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guided_torch import ALPHA_BAR, classifier_free, ddim, network, times
from judged_bundles import autograd, write_judged

from dpmrt.runtime import Guidance, Pipeline, load
from dpmrt.solvers_np import CorrectX0, Hook, plan_from_diffusers, randn

LABELS, SCALES = [0, 2, 1], [6.0, 0.0, 20.0]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judged(tmp_path_factory.mktemp("judged") / "bundle")


@pytest.fixture(scope="module")
def pipeline(judged: Path) -> Iterator[Pipeline]:
    with load(judged) as opened:
        yield opened


def column(values: Any) -> torch.Tensor:
    return torch.as_tensor(np.broadcast_to(values, 3).copy(), dtype=torch.float64).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("scale", [12.0, SCALES])
@pytest.mark.parametrize("guidance", [None, Guidance([3.0, 1.0, 2.0], interval=(0, 0.5), rescale=0.5)])
def test_ddim_follows_algorithm_2(pipeline: Pipeline, scale: Any, guidance: Any) -> None:
    """Alone, on an unconditional network, and together with classifier-free guidance."""
    x, gradient = randn((3, 1, 8, 8), 2), autograd(LABELS)

    def free(x: torch.Tensor, t: float, k: int) -> torch.Tensor:
        if guidance is None:
            return network(x, t, None)
        inside = k / 5 <= 0.5
        return classifier_free(LABELS, lambda k, t: [3.0, 1.0, 2.0] if inside else 1.0, 0.5)(x, t, k)

    def eps_of(x: torch.Tensor, t: float, k: int) -> torch.Tensor:
        return free(x, t, k) - (1 - ALPHA_BAR[int(t)]).sqrt() * column(scale) * gradient(x, t)

    request: Any = {"classifier_label": LABELS} if guidance is None else {"label": LABELS, "guidance": guidance}
    got = pipeline.sample(3, x_T=x, steps=6, classifier_scale=scale, **request)
    expected = ddim(x, eps_of, 6)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    plain = pipeline.sample(3, x_T=x, steps=6, **{key: value for key, value in request.items() if "class" not in key})
    assert abs(got - plain).max() > 0.05


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_follows_algorithm_1(pipeline: Pipeline, variance: str) -> None:
    x, gradient, steps = randn((3, 1, 8, 8), 2), autograd(LABELS), 6
    noise = np.random.default_rng(4).standard_normal((steps - 1, 3, 1, 8, 8)).astype(np.float32)
    plan = plan_from_diffusers(
        {
            "_class_name": "DDPMScheduler",
            "beta_start": 1e-4,
            "beta_end": 0.02,
            "variance_type": variance,
            "clip_sample": False,
        },
        steps,
    )
    got = pipeline.sample(3, x_T=x, plan=plan, noise=noise, classifier_scale=SCALES, classifier_label=LABELS)
    asked = pipeline.sample(
        3, x_T=x, plan=plan, noise=noise, classifier_scale=SCALES, classifier_label=LABELS, classifier_mode="mean"
    )
    np.testing.assert_array_equal(got, asked)
    now, plan_times = torch.as_tensor(x, dtype=torch.float64), times(steps)
    for k, t in enumerate(plan_times):
        a = ALPHA_BAR[t]
        b = ALPHA_BAR[plan_times[k + 1]] if k + 1 < steps else torch.tensor(1.0, dtype=torch.float64)
        beta = 1 - a / b
        # Ho et al. 2020, algorithm 2
        mean = (now - beta / (1 - a).sqrt() * network(now, t, None)) / (a / b).sqrt()
        if k == steps - 1:
            now = mean
            continue
        sigma2 = beta if variance == "fixed_large" else beta * (1 - b) / (1 - a)
        mean = mean + column(SCALES) * sigma2 * gradient(now, float(t))
        now = mean + sigma2.sqrt() * torch.as_tensor(noise[k], dtype=torch.float64)
    np.testing.assert_allclose(got, now.numpy(), rtol=1e-4, atol=1e-4)
    by_noise = pipeline.sample(
        3, x_T=x, plan=plan, noise=noise, classifier_scale=SCALES, classifier_label=LABELS, classifier_mode="noise"
    )
    assert abs(by_noise - got).max() > 1e-3


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_a_scaled_state_is_scaled_for_the_classifier_too(pipeline: Pipeline, name: str) -> None:
    """The ODE in k-diffusion's terms, written here: d x / d sigma = eps(x / sqrt(1 + sigma^2))."""
    gradient, steps = autograd(LABELS), 5
    plan = plan_from_diffusers({"_class_name": name, "beta_start": 1e-4, "beta_end": 0.02}, steps)
    x = randn((3, 1, 8, 8), 2)
    got = pipeline.sample(3, x_T=x, plan=plan, classifier_scale=9.0, classifier_label=LABELS)

    def slope(x: torch.Tensor, row: int) -> torch.Tensor:
        sigma, t = float(plan.sigma[row]), float(plan.t[row])
        z = x / (1 + sigma**2) ** 0.5
        # the score of x: of z over sqrt(1 + sigma^2), by the chain rule; eps is -sigma times the score
        return network(z, t, None) - sigma * 9.0 * gradient(z, t) / (1 + sigma**2) ** 0.5

    now = torch.as_tensor(x, dtype=torch.float64) * plan.init_scale
    rows = [row for row in range(plan.rows) if plan.out[row] >= 0]
    sigmas = [float(plan.sigma[row]) for row in rows] + [0.0]
    if name == "EulerDiscreteScheduler":
        for k, row in enumerate(rows):
            now = now + (sigmas[k + 1] - sigmas[k]) * slope(now, row)
    else:
        for k in range(0, len(rows) - 1, 2):
            first = slope(now, rows[k])
            step = sigmas[k + 1] - sigmas[k]
            now = now + step * (first + slope(now + step * first, rows[k + 1])) / 2
        now = now - sigmas[-2] * slope(now, rows[-1])
    np.testing.assert_allclose(got, now.numpy(), rtol=2e-4, atol=2e-4)


def test_a_learned_variance_scales_the_gradient(tmp_path: Path) -> None:
    root = write_judged(tmp_path / "bundle", doubled_out=True)
    gradient, steps = autograd(1), 5
    config = {
        "_class_name": "DDPMScheduler",
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "variance_type": "learned_range",
        "clip_sample": False,
    }
    plan = plan_from_diffusers(config, steps)
    x = randn((3, 1, 8, 8), 2) * np.float32(0.5)
    noise = np.random.default_rng(4).standard_normal((steps - 1, 3, 1, 8, 8)).astype(np.float32)
    with load(root) as pipeline:
        got = pipeline.sample(3, x_T=x, plan=plan, noise=noise, classifier_scale=15.0, classifier_label=1)
    now, plan_times = torch.as_tensor(x, dtype=torch.float64), times(steps)
    for k, t in enumerate(plan_times):
        a = ALPHA_BAR[t]
        b = ALPHA_BAR[plan_times[k + 1]] if k + 1 < steps else torch.tensor(1.0, dtype=torch.float64)
        beta, said = 1 - a / b, network(now, t, None)
        mean = (now - beta / (1 - a).sqrt() * said) / (a / b).sqrt()
        if k < steps - 1:
            v = (said + 1) / 2
            sigma2 = torch.exp(v * beta.log() + (1 - v) * (beta * (1 - b) / (1 - a)).log())
            mean = mean + 15.0 * sigma2 * gradient(now, float(t))
            mean = mean + sigma2.sqrt() * torch.as_tensor(noise[k], dtype=torch.float64)
        now = mean
    np.testing.assert_allclose(got, now.numpy(), rtol=2e-4, atol=2e-4)


def test_the_label_of_the_network_is_the_classifiers_too(pipeline: Pipeline) -> None:
    both = pipeline.sample(2, label=[1, 2], classifier_scale=3.0, steps=4)
    np.testing.assert_array_equal(
        both, pipeline.sample(2, label=[1, 2], classifier_label=[1, 2], classifier_scale=3.0, steps=4)
    )
    assert (
        abs(both - pipeline.sample(2, label=[1, 2], classifier_label=0, classifier_scale=3.0, steps=4)).max() > 1e-3
    )


def test_a_scale_of_nought_is_no_guidance_and_asks_nothing(pipeline: Pipeline) -> None:
    plain = pipeline.sample(2, label=1, steps=4)
    np.testing.assert_array_equal(pipeline.sample(2, label=1, steps=4, classifier_scale=0.0), plain)
    np.testing.assert_array_equal(pipeline.sample(2, label=1, steps=4, classifier_scale=[0.0, 5.0])[0], plain[0])


def test_guidance_comes_before_a_users_own_hooks(pipeline: Pipeline) -> None:
    seen: list[np.ndarray] = []

    class Look(Hook):
        def output(self, call: Any) -> None:
            seen.append(call.raw.copy())

    pipeline.sample(2, label=1, steps=1, hooks=[Look()])
    pipeline.sample(2, label=1, steps=1, hooks=[Look()], classifier_scale=5.0)
    assert abs(seen[0] - seen[1]).max() > 1e-3
    clamp = CorrectX0(lambda x0, t, level: np.clip(x0, -0.1, 0.1))
    assert abs(pipeline.sample(2, label=1, steps=6, hooks=[clamp], classifier_scale=50.0)).max() <= 0.1001


def test_the_command_line_guides_by_a_classifier(judged: Path, tmp_path: Path, pipeline: Pipeline) -> None:
    from click.testing import CliRunner

    from dpmrt.runtime.cli import main

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(main, ["sample", str(judged), *map(str, arguments)])

    out = tmp_path / "a.npy"
    done = run("-o", out, "--steps", 4, "--classifier-scale", "2,8", "--classifier-label", "1,2,0", "-n", 3)
    assert done.exit_code == 0, done.output
    expected = pipeline.sample(3, steps=4, classifier_scale=[2.0, 8.0, 2.0], classifier_label=[1, 2, 0])
    np.testing.assert_array_equal(np.load(out), expected)
    done = run("-o", out, "--steps", 4, "--label", 2, "--classifier-scale", 3, "--classifier-mode", "noise", "-n", 2)
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(np.load(out), pipeline.sample(2, steps=4, label=2, classifier_scale=3.0))
    table = tmp_path / "table.npy"
    np.save(table, np.array([4.0, 3.0, 2.0, 1.0]))
    done = run("-o", out, "--steps", 4, "--label", 2, "--guidance-schedule", table, "--guidance-rescale", 0.4)
    assert done.exit_code == 0, done.output
    asked = Guidance(schedule=[4.0, 3.0, 2.0, 1.0], rescale=0.4)
    np.testing.assert_array_equal(np.load(out), pipeline.sample(1, steps=4, label=2, guidance=asked))
    interval = ["--guidance-interval", "100,600", "--guidance-unit", "time"]
    done = run("-o", out, "--steps", 4, "--label", 2, "--guidance", "2,5", *interval)
    assert done.exit_code == 0, done.output
    asked = Guidance([2.0, 5.0], interval=(100, 600), unit="time")
    np.testing.assert_array_equal(np.load(out), pipeline.sample(2, steps=4, label=2, guidance=asked))
    for wrong, text in (
        (["--guidance", "a"], "--guidance is not a number"),
        (["--classifier-label", "1.5", "--classifier-scale", "1"], "--classifier-label is not a class"),
        (["--classifier-label", "1"], "--classifier-label and --classifier-mode need a scale"),
        (["--guidance-unit", "time"], "--guidance-unit is for an interval"),
        (["--guidance", "1,2,3", "-n", "2"], "--guidance lists more than there are samples"),
        (["--guidance-interval", "0.5"], "guidance has no such interval"),
        (["--guidance-schedule", "cubic"], "guidance has no such schedule"),
        (["--guidance-schedule", str(tmp_path / "none.npy")], "the schedule of guidance cannot be read"),
        (["--option", "classifier_scale=1"], "classifier_scale cannot be given as --option"),
    ):
        done = run("-o", out, "--steps", 4, "--label", 2, *wrong)
        assert done.exit_code == 1
        assert text in done.output


def test_it_all_runs_without_torch(judged: Path) -> None:
    code = (
        "import sys\nfrom dpmrt.runtime import load\n"
        "with load(sys.argv[1]) as pipeline:\n"
        "    for mode, solver in (('noise', 'dpmsolver++'), ('mean', 'ddpm')):\n"
        "        pipeline.sample(2, label=1, steps=3, solver=solver, classifier_scale=2.0, classifier_mode=mode)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, judged], capture_output=True, text=True, check=True)
    assert not {"torch", "onnx", "scipy", "diffusers", "PIL", "click"} & set(done.stdout.split())
