"""Noise: torch's CPU stream to the last digits, without torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np import NumpyNoise, RecordedNoise, TorchCPUNoise, randn

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


@pytest.mark.parametrize("like", ["torch-cpu", "numpy"])
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
@pytest.mark.parametrize("like", ["torch-cpu", "numpy"])
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
