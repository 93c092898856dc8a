"""Noise: torch's CPU stream to the last digits, without torch; sources by name, for each sample, recorded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np.noise import (
    SOURCES,
    BrownianPath,
    NumpyNoise,
    PerSample,
    RecordedNoise,
    TorchCPUNoise,
    as_source,
    asker,
    make_noise,
    randn,
)

TOLERANCE = 5e-7  # two units in the last place of numbers from 2 to 4; the most seen in 8 million draws is 4.8e-7
SEEDS = [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
SHAPES = [
    (1,),
    (2,),
    (3,),
    (8,),
    (15,),
    (16,),
    (17,),
    (31,),
    (32,),
    (33,),
    (100,),
    (1, 1),
    (3, 5),
    (4, 4),
    (2, 3, 5),
    (1, 3, 8, 8),
    (2, 4, 17, 9),
    (1, 4, 64, 64),
]

# torch.randn(n, generator=torch.Generator().manual_seed(0)), recorded with torch 2.13 on x86-64
EIGHT = [
    1.54099607,
    -0.293428898,
    -2.17878938,
    0.568431258,
    -1.08452237,
    -1.39859545,
    0.403346837,
    0.838026345,
]
TWENTY = [
    -1.12583983,
    -1.1523602,
    -0.250578582,
    -0.433878809,
    0.598839462,
    -1.55509508,
    -0.34136039,
    1.85300612,
    0.468096405,
    -0.157712445,
    1.44366014,
    0.266049415,
    1.38936615,
    1.58633423,
    0.946298361,
    -0.843676746,
    0.931826591,
    1.25900924,
    2.00498056,
    0.0537369028,
]


def test_recorded_values() -> None:
    np.testing.assert_allclose(randn((8,), 0), EIGHT, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(randn((20,), 0), TWENTY, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_to_torch(seed: int) -> None:
    torch = pytest.importorskip("torch")
    for shape in SHAPES:
        generator = torch.Generator().manual_seed(seed if seed < 2**63 else seed - 2**64)
        want = torch.randn(shape, generator=generator).numpy()
        np.testing.assert_allclose(randn(shape, seed), want, atol=TOLERANCE, rtol=0, err_msg=str(shape))


@pytest.mark.parametrize(
    "sizes", [(3, 2, 1, 20, 5, 16, 1, 1, 33, 7), (1, 16, 1, 17, 1, 1), (640, 15, 640, 15), (700, 1, 700)]
)
def test_successive_draws_equal_torch(sizes: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    generator, ours = torch.Generator().manual_seed(5), TorchCPUNoise(5)
    for index, size in enumerate(sizes):
        want = torch.randn(size, generator=generator).numpy()
        np.testing.assert_allclose(ours.normal((size,)), want, atol=TOLERANCE, rtol=0, err_msg=f"draw {index}")


@pytest.mark.parametrize("like", SOURCES)
def test_shape_dtype_and_repeatability(like: str) -> None:
    for shape in SHAPES:
        values = randn(shape, 3, like)
        assert (values.shape, values.dtype) == (shape, np.float32)
        assert values.tobytes() == randn(shape, 3, like).tobytes()
        assert values.tobytes() != randn(shape, 4, like).tobytes()


@pytest.mark.parametrize("source", [TorchCPUNoise, NumpyNoise])
def test_moments(source: Any) -> None:
    values = source(11).normal((200_000,)).astype(np.float64)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.1
    assert np.isfinite(values).all()


def test_seed_zero_is_a_seed() -> None:
    want = randn((16,), 0).tobytes()
    assert TorchCPUNoise(0).normal((16,)).tobytes() == TorchCPUNoise().normal((16,)).tobytes() == want
    assert randn((16,), np.int64(7)).tobytes() == randn((16,), 7).tobytes()


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "0", None, True, math.nan])
@pytest.mark.parametrize("like", SOURCES)
def test_bad_seeds(seed: Any, like: str) -> None:
    with pytest.raises(OptionError, match=r"seed must be a whole number\n.*\n.*0 to 2\*\*64 - 1"):
        randn((2,), seed, like)


def test_unknown_generator() -> None:
    with pytest.raises(OptionError, match=r"unknown noise generator\n.*'torch'\n.*torch-cpu"):
        randn((2,), 0, "torch")


def test_recorded_noise_is_used_up() -> None:
    noise = RecordedNoise(np.arange(6.0).reshape(2, 3))
    assert [len(noise), noise.normal((3,)).tolist(), noise.normal((3,)).tolist(), len(noise)] == [
        2,
        [0.0, 1.0, 2.0],
        [3.0, 4.0, 5.0],
        0,
    ]
    with pytest.raises(ArrayError, match=r"the recorded noise is used up\n.*2 draws"):
        noise.normal((3,))


# For each sample.


@pytest.mark.parametrize("like", SOURCES)
def test_a_list_of_seeds_is_one_stream_for_each_sample(like: str) -> None:
    noise, alone = make_noise(like, [3, 0, 3]), [make_noise(like, seed) for seed in (3, 0, 3)]
    for _ in range(3):
        batch = noise.normal((3, 2, 9))
        assert batch.dtype == np.float32
        for sample, single in zip(batch, alone):
            assert sample.tobytes() == single.normal((1, 2, 9)).tobytes()


def test_a_list_of_seeds_is_a_list_of_generators_in_diffusers() -> None:
    torch = pytest.importorskip("torch")
    tensors = pytest.importorskip("diffusers.utils.torch_utils")
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    ours = make_noise("torch-cpu", [5, 6])
    for shape in [(2, 4, 8, 8), (2, 3), (2, 4, 8, 8)]:
        want = tensors.randn_tensor(shape, generator=generators).numpy()
        np.testing.assert_allclose(ours.normal(shape), want, atol=TOLERANCE, rtol=0)


def test_seeds_that_do_not_fit_the_batch() -> None:
    message = r"another number of seeds than the batch has samples\n.*2 seeds, shape \(3, 4\)\n.*one seed for each"
    with pytest.raises(ArrayError, match=message):
        as_source(make_noise("numpy", [1, 2]), (3, 4), 1)
    with pytest.raises(ArrayError, match=message):
        randn((3, 4), [1, 2])
    with pytest.raises(OptionError, match="the list of seeds is empty"):
        make_noise("numpy", [])
    with pytest.raises(OptionError, match=r"seed must be a whole number\n.*-1"):
        make_noise("numpy", [1, -1])


def test_options_of_another_source() -> None:
    with pytest.raises(OptionError, match=r"numpy has no option of this name\n.*'gpu'\n.*no options"):
        make_noise("numpy", 0, gpu="T4")
    with pytest.raises(OptionError, match=r"torch-cuda: gpu must be a text or None\n.*4"):
        randn((2,), 0, "torch-cuda", gpu=4)


# What run_plan accepts.


class Spanned:
    """Remembers the intervals it was asked with."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        raise AssertionError("asked without the interval")

    def between(self, shape: tuple[int, ...], start: float, end: float) -> np.ndarray:
        self.spans.append((start, end))
        return np.full(shape, end - start, np.float32)


def test_a_source_is_asked_with_the_interval_if_it_wants_it() -> None:
    source = Spanned()
    assert as_source(source, (2, 3), 5) is source
    assert asker(source)((2, 3), 0.5, 0.25).tolist() == [[-0.25] * 3] * 2
    assert source.spans == [(0.5, 0.25)]
    plain = asker(TorchCPUNoise(4))
    assert plain((2, 3), 0.5, 0.25).tobytes() == randn((2, 3), 4).tobytes()


def test_a_mixed_batch_asks_each_source_in_its_way() -> None:
    noise = PerSample([TorchCPUNoise(1), BrownianPath(2)])
    got = noise.between((2, 5), 0.5, 0.25)
    assert got[:1].tobytes() == randn((1, 5), 1).tobytes()
    assert got[1:].tobytes() == BrownianPath(2).between((1, 5), 0.5, 0.25).tobytes()


def test_functions_arrays_and_nothing() -> None:
    assert as_source(None, (2, 3), 1).normal((2, 3)).tobytes() == randn((2, 3), 0).tobytes()
    assert as_source(np.ones, (2, 3), 9).normal((2, 3)).tolist() == np.ones((2, 3)).tolist()
    drawn = np.arange(12.0).reshape(2, 2, 3)
    assert as_source(drawn, (2, 3), 2).normal((2, 3)).tolist() == drawn[0].tolist()
    assert as_source(drawn.tolist(), (2, 3), 2).normal((2, 3)).tolist() == drawn[0].tolist()


def test_recorded_noise_is_checked_by_what_is_left() -> None:
    noise = RecordedNoise(np.zeros((3, 2, 3)))
    assert as_source(noise, (2, 3), 3) is noise
    noise.normal((2, 3))
    assert as_source(noise, (2, 3), 2) is noise
    with pytest.raises(ArrayError, match=r"the recorded noise does not fit the plan\n.*\(2, 2, 3\)\n.*\(3, 2, 3\)"):
        as_source(noise, (2, 3), 3)


REFUSED = [
    (np.zeros((1, 2, 3), int), "the recorded noise has the wrong dtype"),
    ("text", "the recorded noise has the wrong dtype"),
    ([[1.0], [1.0, 2.0]], "the recorded noise is no array"),
    (1.5, r"the recorded noise does not fit the plan\n.*shape \(\)"),
    (np.full((1, 2, 3), np.inf), "the recorded noise holds NaN or infinity"),
    (type("Half", (), {"between": Spanned.between})(), r"has between\(\) but no normal\(\)\n.*Half"),
]


@pytest.mark.parametrize("shape", [5, (-1, 2), (1.5, 2), ("a",)])
def test_what_is_no_shape(shape: Any) -> None:
    with pytest.raises(OptionError, match="shape must be a row of whole numbers"):
        randn(shape, seed=0)


def test_an_array_of_no_axes_is_one_seed() -> None:
    np.testing.assert_array_equal(randn((2, 3), np.array(7)), randn((2, 3), 7))
    with pytest.raises(OptionError, match=r"seed must be a whole number\n.*array\(\[1, 2\]\)"):
        randn((1, 3), np.array([[1, 2]]))


@pytest.mark.parametrize(("noise", "message"), REFUSED)
def test_what_is_no_noise(noise: Any, message: str) -> None:
    with pytest.raises(ArrayError, match=message):
        as_source(noise, (2, 3), 1)
