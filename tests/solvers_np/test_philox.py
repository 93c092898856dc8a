"""CUDA's noise without a GPU: the generator against published vectors, the noise against recorded torch output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np.noise import GPUS, TorchCUDANoise, make_noise, randn
from dpmrt.solvers_np.noise.philox import philox4x32

PRINTED = 6e-5  # torch prints four decimals

KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def corners(values: np.ndarray) -> np.ndarray:
    ends = [0, 1, 2, -3, -2, -1]
    return values[ends][:, ends]


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, want: str) -> None:
    """The three philox4x32-10 vectors of Random123, tests/kat_vectors."""
    first, second = words(key)
    assert [int(word) for word in philox4x32(words(counter), (first, second))] == words(want)


def test_counters_broadcast() -> None:
    many = philox4x32((7, 8, np.arange(5), 9), (3, 4))
    for index in range(5):
        assert [int(word[index]) for word in many] == [int(word) for word in philox4x32((7, 8, index, 9), (3, 4))]


def test_two_successive_draws_of_torch_rand() -> None:
    """The counters of two draws, by the sum that the vector addition tutorial of Triton prints.

    torch.manual_seed(0); torch.rand(98432, device="cuda") + torch.rand(98432, device="cuda").
    """
    thread = np.arange(98432)
    uniform = [(philox4x32((draw, 0, thread, 0), (0, 0))[0] + 0.5) * 2.0**-32 for draw in range(2)]
    got = (uniform[0] + uniform[1])[[0, 1, 2, -3, -2, -1]]
    np.testing.assert_allclose(got, [1.3713, 1.3076, 0.4940, 0.6724, 1.2141, 0.9733], atol=PRINTED, rtol=0)


def test_recorded_8x8() -> None:
    """torch.manual_seed(0); torch.randn(8, 8, device="cuda"), printed in public notes on fused Triton kernels."""
    want = [
        [-0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284],
        [-1.0745, -0.3631, -1.6711, 2.2655, 0.3117, -0.1842, 1.2866, 1.1820],
        [-0.1271, 1.2169, 1.4353, 1.0605, -0.4941, -1.4244, -0.7244, -1.2973],
        [0.0697, -0.0074, 1.8969, 0.6878, -0.0779, -0.8373, 1.3506, -0.2879],
        [-0.5965, -0.3283, -0.9086, -0.8059, -0.7407, -0.0504, 0.5435, 1.5150],
        [0.0141, 0.4532, 1.6349, 0.7124, -0.1806, 1.0252, -1.4622, -0.7554],
        [-0.1836, 0.3824, 0.3918, -0.0830, 0.8971, -1.1123, 0.1116, 0.4863],
        [-0.5499, -0.3231, -0.5469, 0.9049, 0.2837, 0.1210, 0.4730, -1.0823],
    ]
    np.testing.assert_allclose(randn((8, 8), 0, "torch-cuda"), want, atol=PRINTED, rtol=0)


def test_eight_digits() -> None:
    """The first values of seed 0 as the module rng_philox of AUTOMATIC1111's stable-diffusion-webui gives them.

    That module is another reproduction of torch's CUDA stream on a CPU, not torch.
    """
    want = [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564]
    np.testing.assert_allclose(randn((12,), 0, "torch-cuda")[:6], want, atol=5e-7, rtol=0)


@pytest.mark.parametrize(
    ("gpu", "last"), [("A100", [0.1549, -0.6797, -0.1656]), ("H100 SXM", [-0.6970, -0.7780, 0.3267])]
)
def test_a_draw_larger_than_the_launch(gpu: str, last: list[float]) -> None:
    """pytorch issue 143086: torch.randn(1, 49 * 12 * 112 * 144), seed 1, on an "h100" and an "a100", torch 2.5.1."""
    values = randn((1, 49 * 12 * 112 * 144), 1, "torch-cuda", gpu=gpu)[0]
    np.testing.assert_allclose(values[:3], [-0.2963, 2.6764, -0.1408], atol=PRINTED, rtol=0)
    np.testing.assert_allclose(values[-3:], last, atol=PRINTED, rtol=0)


def test_a_gpu_of_fewer_threads() -> None:
    """pytorch issue 97097: FloatTensor(1000, 100).normal_(5, 5**.5), seed 14, on an RTX A4000, torch 2.0."""
    want = [
        [2.8731, 5.2727, 2.9889, 1.6853, 9.6331, 6.6319],
        [3.9968, 3.8097, 5.7328, 4.4029, 3.9804, 7.4698],
        [6.5552, 4.0857, 4.2315, 2.7704, 3.5479, 3.3063],
        [8.6297, 2.3137, 6.2596, 7.9358, 4.4697, 2.7475],
        [7.0551, 7.8583, 3.9990, 4.1139, 8.9315, 4.2042],
        [2.7337, 2.2106, 7.7815, 8.2207, 6.5395, 4.2604],
    ]
    values = 5 + 5**0.5 * randn((1000, 100), 14, "torch-cuda", gpu="RTX A4000")
    np.testing.assert_allclose(corners(values), want, atol=PRINTED, rtol=0)


def test_three_numbers_to_a_thread() -> None:
    """pytorch issue 158398: torch.randn([1, 64, 2048]), seed 42, torch for CUDA 12.6.

    What was read of the issue does not name the GPU; the numbers are those of 28 multiprocessors of 1536 threads.
    """
    want = [
        [0.1940, 2.1614, -0.1721, 1.4540, -2.7733, -0.8932],
        [-0.4574, 0.8063, 0.1580, 0.1124, 0.2769, -1.2535],
        [1.1346, -0.6329, -0.9147, -1.0001, -1.1552, -0.6955],
        [-0.4861, 0.3358, 1.0578, -0.7282, 0.5087, 0.1318],
        [0.7881, 0.8339, -1.1424, -0.6297, -1.1112, -0.4091],
        [-1.2356, -0.4083, -0.4695, -0.4841, 1.2850, -0.0282],
    ]
    noise = TorchCUDANoise(42, multiprocessors=28, threads_per_multiprocessor=1536)
    np.testing.assert_allclose(corners(noise.normal((1, 64, 2048))[0]), want, atol=PRINTED, rtol=0)


def test_two_successive_large_draws() -> None:
    """Triton's matrix multiplication tutorial, its output as published and as logged on an A100-SXM4-40GB.

    torch.manual_seed(0); a and b are torch.randn((512, 512), device="cuda", dtype=torch.float16); torch.matmul(a, b).
    Every entry depends on a row of the first draw and on a column of the second.
    """
    want = [
        [-10.9531, -4.7109, 15.6953, -28.4062, 4.3320, -26.4219],
        [26.8438, 10.0469, -5.4297, -11.2969, -8.5312, 30.7500],
        [-13.2578, 15.8516, 18.0781, -21.7656, -8.6406, 10.2031],
        [40.2812, 18.6094, -25.6094, -2.7598, -3.2441, 41.0000],
        [-6.1211, -16.8281, 4.4844, -21.0312, 24.7031, 15.0234],
        [-17.0938, -19.0000, -0.3831, 21.5469, -30.2344, -13.2188],
    ]
    noise = TorchCUDANoise(0, gpu="A100")
    a, b = (noise.normal((512, 512)).astype(np.float16).astype(np.float64) for _ in range(2))
    np.testing.assert_allclose(corners(a @ b), want, atol=0.02, rtol=0)  # the product was rounded to half precision


@pytest.mark.gpu
@pytest.mark.parametrize("seed", [0, 42, 2**32 + 1, 2**63 - 1])
def test_equal_to_torch_on_a_gpu(seed: int) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    device = torch.cuda.get_device_properties(0)
    generator = torch.Generator("cuda").manual_seed(seed)
    ours = TorchCUDANoise(
        seed,
        multiprocessors=device.multi_processor_count,
        threads_per_multiprocessor=device.max_threads_per_multi_processor,
    )
    for shape in [(1,), (255,), (257,), (1, 4, 64, 64), (4, 4, 128, 128), (3, 1_000_003), (7,), (12_345_678,)]:
        want = torch.randn(shape, device="cuda", generator=generator).cpu().numpy()
        np.testing.assert_allclose(ours.normal(shape), want, atol=1e-5, rtol=0, err_msg=str(shape))


def test_the_gpu_matters_only_beyond_its_threads() -> None:
    threads = 40 * 1024
    small, large = (
        [randn((n,), 3, "torch-cuda", gpu=gpu) for gpu in ("T4", "A100")] for n in (threads, threads + 256)
    )
    assert small[0].tobytes() == small[1].tobytes()
    assert large[0][:threads].tobytes() == large[1][:threads].tobytes()
    assert not np.isin(large[0][threads:], large[1]).any()


def test_draws_advance_by_turns() -> None:
    """A draw uses up one turn for each four numbers a thread, whether or not it takes all four."""
    device: dict[str, Any] = {"multiprocessors": 1, "threads_per_multiprocessor": 256}
    for sizes, turns in [((5, 7), 2), ((1024, 1), 2), ((1025, 1), 3), ((0, 1), 1)]:
        noise = TorchCUDANoise(9, **device)
        last = [noise.normal((size,)) for size in sizes][-1]
        fresh = TorchCUDANoise(9, **device)
        want = [fresh.normal((sizes[-1],)) for _ in range(turns)][-1]
        assert last.tobytes() == want.tobytes(), sizes


def test_all_64_bits_of_the_seed_count() -> None:
    draws = {randn((8,), seed, "torch-cuda").tobytes() for seed in (1, 1 + 2**32, 1 + 2**63, 2**64 - 1)}
    assert len(draws) == 4


def test_moments() -> None:
    values = randn((400_000,), 11, "torch-cuda", gpu="T4").astype(np.float64)  # all four numbers of each thread
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.1
    quarters = values[: 4 * 40_960].reshape(4, -1)
    assert np.abs(np.corrcoef(quarters) - np.eye(4)).max() < 0.03


BAD = [
    ({"gpu": "A1000"}, r"unknown GPU\n.*'A1000'\n.*A100, A10G.*\n.*did you mean 'A100'"),
    ({"gpu": "T4", "multiprocessors": 4}, r"a GPU is given by its name or by two numbers\n.*gpu='T4'"),
    ({"multiprocessors": 4}, r"by two numbers\n.*threads_per_multiprocessor=None\n.*gpu alone, or"),
    ({"multiprocessors": 0, "threads_per_multiprocessor": 1024}, r"multiprocessors is out of range\n.*0\n"),
    ({"multiprocessors": 4, "threads_per_multiprocessor": 128}, r"threads_per_multiprocessor is out of range\n.*128"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_gpus(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TorchCUDANoise(0, **options)
    with pytest.raises(OptionError, match=message):
        make_noise("torch-cuda", 0, **options)


def test_a_draw_beyond_32_bit_offsets_is_refused() -> None:
    with pytest.raises(ArrayError, match=r"too large for CUDA's noise\n.*536870913 numbers\n.*at most 536870912"):
        TorchCUDANoise(0).normal((2**29 + 1,))


def test_the_table_holds_whole_blocks() -> None:
    for name, gpu in GPUS.items():
        assert gpu.threads_per_multiprocessor in (1024, 1536, 2048), name
        assert 1 <= gpu.multiprocessors < 300, name
