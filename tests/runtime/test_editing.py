"""Image to image, inpainting, inversion and interpolation on pipelines, beside diffusers and in bad requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import Make, reference
from tiny_conditioned import write_conditioned

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime import (
    Recorder,
    image_to_image,
    inpaint,
    interpolate,
    invert,
    load,
    reconstruct,
)
from dpmrt.runtime.editing.interpolation import lerp, slerp
from dpmrt.solvers_np import StateView, make_noise, plan_from_diffusers, randn

MASK = np.zeros((8, 8), np.float32)
MASK[:4] = 1
IMAGE = np.clip(randn((2, 1, 8, 8), seed=9), -1, 1)


def dpm(steps: int, **options: Any) -> dict[str, Any]:
    return {"steps": steps, "solver": "dpmsolver++", **options}


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler"])
@pytest.mark.parametrize("strength", [0.35, 0.8])
def test_image_to_image_is_what_a_diffusers_pipeline_computes(
    make_bundle: Make, scheduler: str, strength: float
) -> None:
    """`get_timesteps`, `add_noise` and the scheduler's steps in torch, with a seeded generator for all noise."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    config = {"beta_schedule": "linear", "prediction_type": "epsilon"}
    if scheduler != "DPMSolverMultistepScheduler":
        config["clip_sample"] = False  # type: ignore[assignment]
    root = make_bundle(scheduler={"_class_name": scheduler}) if scheduler == "DDIMScheduler" else None
    if root is None:
        root = make_bundle()
        (root / "dpmrt.json").unlink()
        import json

        (root / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": scheduler, **config}))
    steps, peer = 10, getattr(diffusers, scheduler)(**config)
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(IMAGE.shape, generator=generator)
    peer.set_timesteps(steps)
    skipped = max(steps - min(int(steps * strength), steps), 0)
    if hasattr(peer, "set_begin_index"):
        peer.set_begin_index(skipped)
    times = peer.timesteps[skipped:]
    state = peer.add_noise(torch.from_numpy(IMAGE), z, times[:1].repeat(2))
    given = {"generator": generator} if scheduler != "DPMSolverMultistepScheduler" else {}
    for t in times:
        raw = torch.from_numpy(reference(state.numpy(), np.full(2, float(t), np.float32)))
        state = peer.step(raw, t, state, **given).prev_sample
    with load(root) as pipeline:
        got = image_to_image(pipeline, IMAGE, strength, seed=5, steps=steps)
    np.testing.assert_allclose(got, state.numpy(), atol=2e-5)


def test_more_strength_leaves_less_of_the_picture(plain: Path) -> None:
    with load("digits") as pipeline:
        three = pipeline.sample(1, seed=1, label=3, steps=10)
        distance = [
            float(np.abs(image_to_image(pipeline, three, s, batch=4, label=3, steps=10) - three).mean())
            for s in (0.1, 0.3, 0.6, 1.0)
        ]
    assert distance == sorted(distance)
    assert distance[0] < 0.12 < 0.25 < distance[-1]


def test_a_picture_may_be_repeated_and_samples_stand_for_themselves(plain: Path) -> None:
    with load(plain) as pipeline:
        many = image_to_image(pipeline, IMAGE[:1], 0.5, batch=3, seed=[1, 2, 3], steps=6, **_ddim(0.4))
        alone = image_to_image(pipeline, IMAGE[:1], 0.5, seed=[2], steps=6, **_ddim(0.4))
        own = image_to_image(pipeline, IMAGE, 0.5, x_T=randn(IMAGE.shape, 3), steps=6)
        assert (own == image_to_image(pipeline, IMAGE, 0.5, seed=3, steps=6)).all()
    np.testing.assert_array_equal(many[1:2], alone)


def _ddim(eta: float) -> dict[str, Any]:
    return {"solver": "ddim", "eta": eta}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "heun"},
        {"solver": "unipc", "strength": 0.7},
        {"known_noise": "fresh", "solver": "ddpm"},
        {"repaint": (2, 3)},
        {"repaint": (1, 2), "solver": "ddim", "eta": 0.5, "known_noise": "fixed", "strength": 0.8},
        {"solver": "dpmsolver++", "grid": "uniform"},
        {"solver": "euler", "s_churn": 2.0},
    ],
)
def test_what_is_known_is_kept_exactly_whatever_runs(plain: Path, options: dict[str, Any]) -> None:
    with load(plain) as pipeline:
        got = inpaint(pipeline, IMAGE, MASK, steps=8, seed=4, **options)
        again = inpaint(pipeline, IMAGE, MASK, steps=8, seed=4, **options)
    np.testing.assert_array_equal(got[..., 4:, :], IMAGE[..., 4:, :])
    assert (np.abs(got - IMAGE)[..., :4, :] > 1e-3).mean() > 0.9
    np.testing.assert_array_equal(got, again)


def test_the_known_part_is_noised_as_diffusers_inpainting_pipelines_do(plain: Path) -> None:
    """Stable Diffusion's: after each step the image noised by the first noise to the next time, and blended."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    config = {"beta_schedule": "linear", "clip_sample": False, "set_alpha_to_one": True}
    peer, steps = diffusers.DDIMScheduler(**config), 5
    peer.set_timesteps(steps)
    state = z = torch.from_numpy(randn(IMAGE.shape, 6))
    known, mask = torch.from_numpy(IMAGE), torch.from_numpy(MASK)
    for k, t in enumerate(peer.timesteps):
        raw = torch.from_numpy(reference(state.numpy(), np.full(2, float(t), np.float32)))
        state = peer.step(raw, t, state).prev_sample
        later = peer.timesteps[k + 1 : k + 2]
        noised = peer.add_noise(known, z, later.repeat(2)) if len(later) else known
        state = (1 - mask) * noised + mask * state
    with load(plain) as pipeline:
        got = inpaint(pipeline, IMAGE, MASK, steps=steps, seed=6)
    np.testing.assert_allclose(got, state.numpy(), atol=2e-5)


def test_a_mask_may_blend_and_serve_all_or_each(plain: Path) -> None:
    soft = np.broadcast_to(np.linspace(0, 1, 8, dtype=np.float32), (8, 8))
    each = np.stack([MASK, 1 - MASK])[:, None]
    with load(plain) as pipeline:
        blended = inpaint(pipeline, IMAGE, soft, steps=4)
        np.testing.assert_array_equal(blended[..., 0], IMAGE[..., 0])
        got = inpaint(pipeline, IMAGE, each.astype(bool), steps=4)
        two = inpaint(pipeline, IMAGE, np.stack([MASK, MASK])[:, None], steps=4)
        assert (two == inpaint(pipeline, IMAGE, MASK, steps=4)).all()
    np.testing.assert_array_equal(got[1, :, :4], IMAGE[1, :, :4])
    np.testing.assert_array_equal(got[0, :, 4:], IMAGE[0, :, 4:])


@pytest.mark.parametrize(("steps", "ddim", "dpm2"), [(20, 0.12, 0.06), (50, 0.05, 0.025)])
def test_digits_are_found_again_and_the_error_falls_with_the_steps(steps: int, ddim: float, dpm2: float) -> None:
    with load("digits") as pipeline:
        digits = pipeline.sample(1, seed=1, label=8, steps=20)
        first = reconstruct(pipeline, digits, steps=steps, label=8, guidance=1)
        second = reconstruct(pipeline, digits, steps=steps, label=8, guidance=1, solver="dpmsolver++")
        assert (invert(pipeline, digits, steps=steps, label=8, guidance=1) == first.noise).all()
        again = pipeline.sample(1, x_T=second.noise, steps=steps, label=8, guidance=1, solver="dpmsolver++")
    assert first.error.shape == (1,)
    assert first.error.max() < ddim
    assert second.error.max() < dpm2
    np.testing.assert_array_equal(again, second.images)
    np.testing.assert_allclose(second.error, np.sqrt(((again - digits) ** 2).mean(axis=(1, 2, 3))), rtol=1e-5)


def test_iterations_invert_what_the_solver_sampled(plain: Path) -> None:
    """A network that changes little over a step is inverted up to rounding; so is one bundle's guidance."""
    with load(plain) as pipeline:
        for options in ({"solver": "ddim"}, {"solver": "euler"}, {"solver": "dpmsolver++", "order": 1}):
            x_T = randn((2, 1, 8, 8), 3)
            sample = np.clip(pipeline.sample(2, x_T=x_T, steps=12, **options), -2, 2)
            plain_error = reconstruct(pipeline, sample, steps=12, **options).error.max()
            found = reconstruct(pipeline, sample, steps=12, iterations=12, **options)
            assert found.error.max() < 1e-5 < plain_error


@pytest.mark.parametrize("name", ["DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"])
def test_inversion_by_diffusers_classes_is_theirs(plain: Path, name: str) -> None:
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    config = {"beta_schedule": "linear", **({"clip_sample": False} if name.startswith("DDIM") else {})}
    peer = getattr(diffusers, name)(**config)
    peer.set_timesteps(10)
    image = 0.9 * IMAGE
    with load(plain) as pipeline:
        got = invert(pipeline, image, steps=10, solver=name)
        start = 1.0 if name.startswith("DDIM") else plan_from_diffusers({"_class_name": name}, 10).start[0]
    state = torch.from_numpy(np.float32(start) * image)
    for t in peer.timesteps:
        raw = torch.from_numpy(reference(state.numpy(), np.full(2, float(t), np.float32)))
        state = peer.step(raw, t, state).prev_sample
    np.testing.assert_allclose(got, state.numpy(), atol=1e-4)


def test_interpolation_goes_from_one_sample_to_the_other(labelled: Path) -> None:
    with load(labelled) as pipeline:
        way = interpolate(pipeline, (3, 4), frames=5, label=1, steps=5)
        ends = pipeline.sample(2, seed=[3, 4], label=1, steps=5)
        np.testing.assert_allclose(way[[0, -1]], ends, atol=1e-6)
        a, b = randn((1, 8, 8), 3), randn((1, 8, 8), 4)
        middle = pipeline.sample(1, x_T=slerp(a, b, 0.5)[None], label=1, steps=5)
        np.testing.assert_allclose(way[2:3], middle, atol=1e-6)
        straight = interpolate(pipeline, (a, b), frames=3, mode="lerp", label=1, steps=5)
        half = pipeline.sample(1, x_T=(a + b)[None] / 2, label=1, steps=5)
        np.testing.assert_allclose(straight[1:2], half, atol=1e-6)
        loop = interpolate(pipeline, [3, 4, 3], frames=5, label=1, steps=5)
        np.testing.assert_allclose(loop[[0, 2, 4]], way[[0, 4, 0]], atol=1e-6)


def test_fresh_noise_is_one_for_all_frames(plain: Path) -> None:
    with load(plain) as pipeline:
        still = interpolate(pipeline, (3, 3), frames=4, steps=6, solver="ddpm")
    assert np.ptp(still, axis=0).max() < 1e-5 * np.abs(still).max()


def test_slerp_keeps_length_and_angle() -> None:
    a, b = (make_noise("numpy", k).normal((3, 40)).astype(np.float64) for k in (1, 2))
    previous = a
    angle = np.arccos(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))
    for k in range(1, 9):
        point = slerp(a, b, k / 8)
        length = (1 - k / 8) * np.linalg.norm(a) + k / 8 * np.linalg.norm(b)
        assert np.linalg.norm(point) == pytest.approx(length)
        turned = np.vdot(point, previous) / np.linalg.norm(point) / np.linalg.norm(previous)
        assert np.arccos(turned) == pytest.approx(angle / 8, rel=1e-6)
        previous = point
    np.testing.assert_allclose(slerp(a, a, 0.3), a)
    np.testing.assert_allclose(slerp(a, 2 * a, 0.5), 1.5 * a)
    assert np.isfinite(slerp(a, -a, 0.5)).all()
    assert np.linalg.norm(lerp(a, b, 0.5)) < 0.8 * np.linalg.norm(slerp(a, b, 0.5))


def test_float_conditions_are_interpolated_and_others_not(tmp_path: Path) -> None:
    root = write_conditioned(
        tmp_path / "b",
        sample=("batch", 1, 8, 8),
        conditions={"encoder_hidden_states": ("float32", ("batch", 4)), "class_labels": ("int64", ("batch",))},
    )
    ends = randn((2, 4), 1)
    with load(root) as pipeline:
        way = interpolate(pipeline, (1, 1), 3, label=1, conditions={"encoder_hidden_states": ends})
        middle = ends.mean(axis=0, keepdims=True)
        other = interpolate(pipeline, (1, 1), 2, label=1, conditions={"encoder_hidden_states": middle})
        np.testing.assert_allclose(way[1], other[0], atol=1e-5)
        assert np.abs(way[0] - way[2]).max() > 1e-3
        with pytest.raises(ArrayError, match=r"class_labels is no numbers that could be interpolated\n.*int64"):
            interpolate(
                pipeline, (1, 2), 3, conditions={"encoder_hidden_states": ends, "class_labels": np.array([1, 2])}
            )


def test_a_recorder_shows_the_course_of_an_edit(plain: Path) -> None:
    class Seen(Recorder):
        steps = 0

        def state(self, step: StateView) -> None:
            self.steps += 1
            super().state(step)

    with load(plain) as pipeline:
        recorder = Seen(pipeline.manifest.prediction, every=3)
        got = image_to_image(pipeline, IMAGE, 0.8, steps=10, hooks=[recorder])
        plan = pipeline.plan(10, strength=0.8)
        assert recorder.steps == plan.rows
        np.testing.assert_array_equal(recorder.t[:-1], plan.timesteps[::3])
        assert recorder.x.shape == recorder.x0.shape == (4, 2, 1, 8, 8)
        np.testing.assert_array_equal(recorder.x[-1], got)
        # DDIM's last step returns what the network says of x0, and eps = (x - alpha x0) / sigma throughout
        first = float(plan.alpha[0]), float(plan.sigma[0])
        eps = reference(recorder.x[0], np.full(2, plan.t[0], np.float32))
        np.testing.assert_allclose(first[0] * recorder.x0[0] + first[1] * eps, recorder.x[0], atol=1e-4)
        only = Recorder("epsilon", keep=("x",))
        with pytest.raises(OptionError, match="the recorder holds no x\n"):
            _ = only.x
        pipeline.sample(1, steps=3, hooks=[only])
        with pytest.raises(OptionError, match="the recorder holds no x0"):
            _ = only.x0
    for wrong in ({"every": 0}, {"keep": "x"}, {"keep": ("y",)}, {"keep": ()}):
        with pytest.raises(OptionError, match=r"every is out of range|keep names nothing"):
            Recorder("epsilon", **wrong)  # type: ignore[arg-type]


def test_latents_have_no_range(tmp_path: Path) -> None:
    latents = 6 * randn((1, 4, 8, 8), 1)
    with load(write_conditioned(tmp_path / "b", sample=("batch", 4, 8, 8))) as pipeline:
        assert image_to_image(pipeline, latents, 0.5).shape == latents.shape
        with pytest.warns(UserWarning, match="have not settled"):
            invert(pipeline, latents, iterations=1)
