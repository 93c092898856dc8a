"""dpmrt edit, invert, interpolate and sample --frames: what they write, refuse, and leave behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from editing_files import write_pixels
from PIL import Image
from tiny_conditioned import write_conditioned

from dpmrt.runtime import cli, image_to_image, inpaint, interpolate, invert, load, read_image, read_mask, reconstruct
from dpmrt.solvers_np import randn


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def done(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def test_edit_varies_a_picture(labelled: Path, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    arguments = ["--label", "0,2", "-n", 3, "--strength", 0.5, "--steps", 6, "--seed", 4, "--guidance", 1.5]
    result = done("edit", labelled, "--image", picture, "-o", out, *arguments)
    assert result.stdout.startswith(f"wrote {out}: 3 samples, 3 network calls, ")
    with load(labelled) as pipeline:
        x0 = read_image(pipeline, picture)
        np.testing.assert_allclose(x0[0, 0], np.arange(64).reshape(8, 8) * 8 / 255 - 1, atol=1e-6)
        expected = image_to_image(pipeline, x0, 0.5, batch=3, label=[0, 2, 0], steps=6, seed=4, guidance=1.5)
    np.testing.assert_array_equal(np.load(out), expected)
    done("edit", labelled, "--image", picture, "--image", picture, "-o", tmp_path / "two.png", "--grid", 2, "-q")
    with Image.open(tmp_path / "two.png") as sheet:
        assert sheet.size == (136, 64)


def test_edit_paints_where_the_mask_is_white(plain: Path, picture: Path, mask: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    options = ["--image", picture, "--mask", mask, "--steps", 8, "--seed", 2]
    done("edit", plain, *options, "-o", out)
    with load(plain) as pipeline:
        x0, painted = read_image(pipeline, picture), read_mask(pipeline, mask)
        assert painted.tolist() == [[1.0] * 8] * 4 + [[0.0] * 8] * 4
        np.testing.assert_array_equal(np.load(out), inpaint(pipeline, x0, painted, steps=8, seed=2))
        done("edit", plain, *options, "--repaint", "2,3", "--strength", 0.75, "-o", out)
        expected = inpaint(pipeline, x0, painted, steps=8, seed=2, repaint=(2, 3), strength=0.75)
    np.testing.assert_array_equal(np.load(out), expected)
    np.testing.assert_array_equal(np.load(out)[:, :, 4:], x0[:, :, 4:])
    np.save(tmp_path / "mask.npy", painted)
    done("edit", plain, *options[:3], tmp_path / "mask.npy", *options[4:], "-o", tmp_path / "again.npy")
    done("edit", plain, *options, "-o", out)
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), np.load(out))


def test_invert_writes_noise_that_samples_again(plain: Path, picture: Path, tmp_path: Path) -> None:
    noise, again, sampled = (tmp_path / name for name in ("noise.npy", "again.npy", "sampled.npy"))
    options = ["--steps", 12, "--solver", "ddim"]
    result = done("invert", plain, "--image", picture, "-o", noise, "--reconstruct", again, *options)
    assert "1 noise, 24 network calls, root mean square error " in result.stdout
    done("sample", plain, "--noise", noise, *options, "-o", sampled)
    np.testing.assert_array_equal(np.load(again), np.load(sampled))
    with load(plain) as pipeline:
        x0 = read_image(pipeline, picture)
        found = reconstruct(pipeline, x0, steps=12)
        np.testing.assert_array_equal(np.load(noise), found.noise)
        np.testing.assert_array_equal(np.load(again), found.images)
        done("invert", plain, "--image", picture, "-o", noise, "--iterations", 5, *options)
        np.testing.assert_array_equal(np.load(noise), invert(pipeline, x0, steps=12, iterations=5))


def test_interpolate_writes_the_way(labelled: Path, tmp_path: Path) -> None:
    options = ["--seeds", "1,2", "-f", 5, "--label", 1, "--steps", 4]
    done("interpolate", labelled, *options, "-o", tmp_path / "way.npy")
    with load(labelled) as pipeline:
        expected = interpolate(pipeline, (1, 2), 5, label=1, steps=4)
    np.testing.assert_array_equal(np.load(tmp_path / "way.npy"), expected)
    done("interpolate", labelled, *options, "-o", tmp_path / "way.png", "--scale", 1)
    with Image.open(tmp_path / "way.png") as strip:
        assert strip.size == (5 * 9 - 1, 8)
    result = done("interpolate", labelled, *options, "-o", tmp_path / "way.apng", "--fps", 4)
    assert "5 frames, 4 network calls" in result.stdout
    with Image.open(tmp_path / "way.apng") as moving:
        assert (moving.n_frames, moving.size, moving.info["duration"]) == (5, (64, 64), 250.0)  # type: ignore[attr-defined]


def test_sample_writes_its_course(plain: Path, tmp_path: Path) -> None:
    options = ["-n", 2, "--steps", 6, "-o", tmp_path / "a.npy", "--frames-every", 2]
    done("sample", plain, *options, "--frames", tmp_path / "course.npy")
    course = np.load(tmp_path / "course.npy")
    assert course.shape == (4, 2, 1, 8, 8)
    np.testing.assert_array_equal(course[-1], np.load(tmp_path / "a.npy"))
    done("sample", plain, *options, "--frames", tmp_path / "states.npy", "--frames-show", "x")
    np.testing.assert_array_equal(np.load(tmp_path / "states.npy")[0], randn((2, 1, 8, 8), 0))
    done("sample", plain, *options, "--frames", tmp_path / "course.png", "--scale", 1, "-o", tmp_path / "a.png")
    with Image.open(tmp_path / "course.png") as strip:
        assert strip.size == (4 * 9 - 1, 2 * 9 - 1)
    done("sample", plain, *options, "--frames", tmp_path / "course.apng", "--fps", 2)
    with Image.open(tmp_path / "course.apng") as moving:
        assert (moving.n_frames, moving.info["duration"]) == (4, 500.0)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("shape", "axis"), [((1, 5, 8, 8), 1), ((5, 1, 8, 8), 2)])
def test_clips_are_shown_and_their_frames_kept_together(tmp_path: Path, shape: tuple[int, ...], axis: int) -> None:
    root = write_conditioned(tmp_path / "bundle", sample=("batch", *shape), axis=axis)
    options = ["-n", 2, "--frame-noise", "1.0", "--smooth", "0.5,2", "--steps", 3]
    done("sample", root, "-o", tmp_path / "a.apng", *options)
    with Image.open(tmp_path / "a.apng") as moving:
        assert (moving.n_frames, moving.size) == (5, (136, 64))  # type: ignore[attr-defined]
    done("sample", root, "-o", tmp_path / "a.png", "--scale", 1, *options)
    with Image.open(tmp_path / "a.png") as strip:
        assert strip.size == (5 * 9 - 1, 2 * 9 - 1)
    done("sample", root, "-o", tmp_path / "a.npy", *options)
    clip = np.moveaxis(np.load(tmp_path / "a.npy"), 3 - axis, 0)
    np.testing.assert_allclose(clip[0], clip[4], rtol=1e-4, atol=1e-4)  # one noise for all frames: they stand still


def test_an_enlarged_picture_is_read_at_its_own_size_and_colour_becomes_grey(plain: Path, tmp_path: Path) -> None:
    done("sample", plain, "-o", tmp_path / "big.png", "--steps", 2)
    with load(plain) as pipeline, Image.open(tmp_path / "big.png") as big:
        small = read_image(pipeline, tmp_path / "big.png")
        assert (small.shape, big.size) == ((1, 1, 8, 8), (64, 64))
        big.convert("RGB").resize((8, 8), Image.Resampling.NEAREST).save(tmp_path / "colour.png")
        np.testing.assert_array_equal(read_image(pipeline, tmp_path / "colour.png"), small)
        colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
        write_pixels(tmp_path / "colours.png", colours)
        grey = np.asarray(Image.fromarray(colours).convert("L"), int)
        got = np.rint((read_image(pipeline, tmp_path / "colours.png")[0, 0] + 1) * 127.5)
        assert np.abs(got - grey).max() <= 1
        pixels = np.asarray(grey, np.uint8)[None]
        np.save(tmp_path / "pixels.npy", pixels)
        np.testing.assert_allclose(read_image(pipeline, tmp_path / "pixels.npy")[0, 0], grey / 127.5 - 1, atol=1e-6)


def test_a_bundle_of_latents_takes_no_png(tmp_path: Path, picture: Path) -> None:
    root = write_conditioned(tmp_path / "bundle", sample=("batch", 4, 8, 8))
    result = run("edit", root, "--image", picture, "-o", tmp_path / "a.npy")
    assert "the network moves no pictures, so it takes none from a .png" in result.stderr
    np.save(tmp_path / "x.npy", 5 * randn((4, 8, 8), 1))
    done("edit", root, "--image", tmp_path / "x.npy", "-o", tmp_path / "a.npy")
    assert np.load(tmp_path / "a.npy").shape == (1, 4, 8, 8)


@pytest.mark.parametrize("command", ["edit", "invert", "interpolate"])
def test_help_has_examples(command: str) -> None:
    shown = done(command, "--help").output
    assert "Examples:" in shown
    assert f"dpmrt {command} digits" in shown
