"""The Brownian path: its law, and that it is one path whatever is asked of it in whatever order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmrt.errors import ArrayError, OptionError
from dpmrt.solvers_np import compile_plan, make_schedule, run_plan
from dpmrt.solvers_np.noise import BrownianPath, PerSample, as_source, make_noise, randn

MANY = (200_000,)
FEW = (3, 5)
COUNTS = (10, 20, 40, 80, 160)
SHARES = [1.0, 0.999999, 0.97, 0.9, 0.5, 0.4999, 0.2, 1e-2, 1e-4, 1e-9, 0.0]


def snr(share: float) -> float:
    return (1 - share) / share if share else math.exp(37)


def length(start: float, end: float) -> float:
    return snr(end) - snr(start)


def combined(path: BrownianPath, shares: list[float], shape: tuple[int, ...] = FEW) -> np.ndarray:
    total = sum(
        math.sqrt(length(a, b)) * path.between(shape, a, b).astype(np.float64) for a, b in itertools.pairwise(shares)
    )
    return np.asarray(total / math.sqrt(length(shares[0], shares[-1])))


@pytest.mark.parametrize(("start", "end"), [*itertools.pairwise(SHARES), (1.0, 0.0), (0.9, 0.1), (0.3, 0.6)])
def test_each_interval_is_standard_normal(start: float, end: float) -> None:
    values = BrownianPath(5).between(MANY, start, end)
    assert values.dtype == np.float32
    doubled = values.astype(np.float64)
    assert abs(doubled.mean()) < 0.01
    assert abs(doubled.var() - 1) < 0.015
    assert abs((doubled**4).mean() - 3) < 0.1


def test_disjoint_intervals_are_independent() -> None:
    path = BrownianPath(6)
    draws = [path.between(MANY, a, b) for a, b in itertools.pairwise(SHARES)]
    assert np.abs(np.corrcoef(draws) - np.eye(len(draws))).max() < 0.012


@pytest.mark.parametrize(
    ("first", "second"), [((0.9, 0.3), (0.5, 0.1)), ((0.8, 0.2), (0.6, 0.4)), ((1, 0.5), (1, 0.1))]
)
def test_overlapping_intervals_share_their_overlap(first: tuple[float, float], second: tuple[float, float]) -> None:
    path = BrownianPath(7)
    overlap = length(min(first[0], second[0]), max(first[1], second[1]))
    want = overlap / math.sqrt(length(*first) * length(*second))
    got = np.mean(path.between(MANY, *first).astype(np.float64) * path.between(MANY, *second))
    assert abs(got - want) < 0.012


def test_a_coarse_plan_sees_what_a_fine_one_saw() -> None:
    shares = [1 - (k / 1000) ** 2 for k in range(1000)]
    fine = BrownianPath(8)
    for stride in (2, 7, 50, 999):
        coarse = BrownianPath(8).between(FEW, shares[0], shares[stride])
        np.testing.assert_allclose(combined(fine, shares[: stride + 1]), coarse, atol=1e-6, rtol=0)
    for steps in (3, 27, 37, 111):
        ladder = shares[::steps]
        whole = BrownianPath(8).between(FEW, ladder[1], ladder[-1])
        np.testing.assert_allclose(combined(fine, ladder[1:]), whole, atol=1e-6, rtol=0)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=6, unique=True))
def test_any_ladder_adds_up(shares: list[float]) -> None:
    ladder = sorted((share for share in shares if share == 0 or share > 1e-9), reverse=True)
    if len(ladder) > 1 and all(b < a - 1e-12 for a, b in itertools.pairwise(ladder)):
        whole = BrownianPath(1).between(FEW, ladder[0], ladder[-1])
        np.testing.assert_allclose(combined(BrownianPath(1), ladder), whole, atol=3e-6, rtol=0)


def test_the_order_of_questions_does_not_matter() -> None:
    spans = [*itertools.pairwise(SHARES), (0.9, 0.1), (0.1, 0.9), (0.2, 0.7), (1.0, 0.0)]
    want = {span: BrownianPath(9).between(FEW, *span).tobytes() for span in spans}
    shuffled = np.random.default_rng(0)
    for _ in range(5):
        path = BrownianPath(9)
        path.normal(FEW)
        for index in shuffled.permutation(len(spans)):
            assert path.between(FEW, *spans[index]).tobytes() == want[spans[index]], spans[index]


def test_another_shape_in_between_changes_nothing() -> None:
    path = BrownianPath(9)
    before = path.between(FEW, 0.9, 0.5)
    assert path.between((2, 2), 0.9, 0.5).shape == (2, 2)
    assert path.between(FEW, 0.9, 0.5).tobytes() == before.tobytes()


def test_nearly_equal_shares_give_nearly_equal_paths() -> None:
    for share in (0.37, 0.5, 1e-3):
        near = float(np.nextafter(share, 1))
        first, second = (BrownianPath(2).between(FEW, 0.9, end) for end in (share, near))
        np.testing.assert_allclose(first, second, atol=1e-6, rtol=0)


def test_rising_noise_is_no_part_of_the_path() -> None:
    path = BrownianPath(10)
    fall, rise, other = (path.between(MANY, *span) for span in ((0.6, 0.3), (0.3, 0.6), (0.3, 0.61)))
    assert np.abs(np.corrcoef([fall, rise, other, path.normal(MANY)]) - np.eye(4)).max() < 0.012
    assert path.between(MANY, 0.3, 0.6).tobytes() == rise.tobytes()


def test_an_interval_of_no_length_is_drawn_afresh() -> None:
    for start, end in ((0.4, 0.4), (1.0, 1.0), (0.0, 0.0), (1e-20, 1e-30)):
        values = BrownianPath(11).between(MANY, start, end)
        assert abs(float(values.std()) - 1) < 0.01


def test_seeds() -> None:
    seeds = [0, 1, 2**32, 2**64 - 1]
    assert len({BrownianPath(seed).between(FEW, 0.8, 0.2).tobytes() for seed in seeds}) == len(seeds)
    assert len({BrownianPath(seed).between(FEW, 0.2, 0.8).tobytes() for seed in seeds}) == len(seeds)
    assert len({randn(FEW, seed, "brownian").tobytes() for seed in seeds}) == len(seeds)
    for seed in (-1, 2**64, 0.5, None):
        with pytest.raises(OptionError, match="seed must be a whole number"):
            BrownianPath(seed)  # type: ignore[arg-type]


def test_a_sample_does_not_depend_on_its_batch() -> None:
    batch = make_noise("brownian", [4, 5, 6]).between((3, 2, 2), 0.8, 0.2)  # type: ignore[attr-defined]
    for index, seed in enumerate([4, 5, 6]):
        alone = BrownianPath(seed).between((1, 2, 2), 0.8, 0.2)
        assert batch[index : index + 1].tobytes() == alone.tobytes()


def test_it_is_taken_as_it_is() -> None:
    path = BrownianPath(0)
    assert as_source(path, FEW, 3) is path
    assert isinstance(make_noise("brownian", [1, 2]), PerSample)


@pytest.mark.parametrize("span", [(1.1, 0.5), (0.5, -0.1), (math.nan, 0.5), (0.5, math.inf)])
def test_an_interval_outside_is_refused(span: tuple[float, float]) -> None:
    with pytest.raises(ArrayError, match=r"an interval of noise lies between 0 and 1\n.*to"):
        BrownianPath(0).between(FEW, *span)


def test_a_path_keeps_little_of_what_it_drew() -> None:
    path, shape = BrownianPath(0), (1, 4, 64, 64)
    for start, end in itertools.pairwise(np.linspace(1, 0, 41).tolist()):
        path.between(shape, start, end)
    kept = {id(array): array.nbytes for ends in path._ends for array in ends}
    assert sum(kept.values()) <= 22 * 4 * 64 * 64 * 8


def test_plans_of_more_steps_converge_to_one_sample() -> None:
    """The data are normal with variance 1/4, so the network is exact; fresh noise gives another sample each time."""
    schedule, x = make_schedule("linear"), randn((1, 2000), 7)

    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        alpha, sigma = float(schedule.alpha(t[0])), float(schedule.sigma(t[0]))
        return x * sigma / (alpha**2 / 4 + sigma**2)

    def steps_apart(like: str) -> list[float]:
        samples = [run_plan(compile_plan("ddpm", schedule, n), model, x, noise=make_noise(like, 3)) for n in COUNTS]
        return [float(np.sqrt(((a - b) ** 2).mean())) for a, b in itertools.pairwise(samples)]

    path, fresh = steps_apart("brownian"), steps_apart("torch-cpu")
    assert path[0] < 0.2
    assert all(later < 0.8 * earlier for earlier, later in itertools.pairwise(path))
    assert min(fresh) > 0.4
