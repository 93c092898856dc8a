"""Exact likelihoods: closed forms for VE, VP and sub-VP, Hutchinson's estimate within its error, a bundle's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact_models import GAUSS, SCHEDULES, TWO, ExactProduct, at, density, started, transported
from scipy.integrate import solve_ivp
from tiny_bundles import write_bundle
from vjp_bundles import KERNEL_MATRIX, add_vjp

from dpmrt.errors import ArrayError, BudgetError, BundleError, OptionError
from dpmrt.runtime import load
from dpmrt.runtime.likelihood import PROBES, Likelihood, fill_levels, likelihood_of
from dpmrt.runtime.ode.course import Course
from dpmrt.runtime.ode.field import VARIABLES
from dpmrt.solvers_np import NoiseSchedule, make_schedule

SHAPE = (3, 4)
LOG_2PI = np.log(2 * np.pi)
TIGHT = Course("DOP853", 1e-9, 1e-9, None, 50_000)


def data(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(5).normal(0.2, 0.7, shape)


def likelihood(product: Any, x: np.ndarray, variable: str | None = None, **options: Any) -> Likelihood:
    course = options.pop("course", TIGHT)
    course = Course(course.method, course.rtol, course.atol, variable or course.variable, course.max_calls)
    return likelihood_of(product, x, course=course, data_range=(-1.0, 1.0), **options)


def unit(schedule: NoiseSchedule) -> float:
    return float(started(schedule, np.ones(1))[0])


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_mixture_s_density_is_found_exactly(name: str, variable: str) -> None:
    schedule, prediction = SCHEDULES[name]
    product = ExactProduct(TWO, schedule, prediction, SHAPE)
    found = likelihood(product, data(), variable)
    first, last = at(schedule, schedule.t_min), at(schedule, schedule.t_max)
    # the map keeps quantiles, so it stretches by the ratio of the densities; the prior is unit noise, scaled
    x = first.alpha * data()
    noise = transported(TWO, schedule, x, schedule.t_min, schedule.t_max)
    u = unit(schedule)
    prior = -0.5 * (noise / u) ** 2 - 0.5 * LOG_2PI - np.log(u)
    each = prior + density(TWO, x, first) - density(TWO, noise, last) + np.log(first.alpha)
    np.testing.assert_allclose(found.log_p, each.sum(axis=1), atol=2e-5)
    np.testing.assert_allclose(found.noise, noise / u, atol=1e-6)
    assert found.report.calls == product.calls
    assert found.report.variable == variable
    assert np.isnan(found.error).all()


@pytest.mark.parametrize("name", ["ve", "vp", "sub-vp"])
def test_a_gaussian_s_density_is_the_closed_form_where_the_prior_is_the_end_of_the_diffusion(name: str) -> None:
    schedule, prediction = SCHEDULES[name]
    found = likelihood(ExactProduct(GAUSS, schedule, prediction, SHAPE), data())
    level = at(schedule, schedule.t_min)
    spread = np.hypot(GAUSS.spread[0], level.sigma / level.alpha)
    closed = -0.5 * ((data() - GAUSS.mean[0]) / spread) ** 2 - 0.5 * LOG_2PI - np.log(spread)
    # what differs is that noise at the last time still holds some of the data
    np.testing.assert_allclose(found.log_p, closed.sum(axis=1), atol=0.1)
    bits = -found.log_p / (SHAPE[1] * np.log(2)) + 7
    np.testing.assert_allclose(found.bits_per_dim, bits)


class Tilted:
    """A Gaussian with a full covariance: eps = sigma C_t^-1 (x - alpha m), whose Jacobian is no diagonal."""

    precision, prediction = "fp64", "epsilon"

    def __init__(self, schedule: NoiseSchedule, shape: tuple[int, ...]) -> None:
        self.schedule, self.shape, self.calls = schedule, shape, 0
        root = np.random.default_rng(2).normal(0, 0.4, (shape[1], shape[1]))
        self.covariance = root @ root.T + 0.05 * np.eye(shape[1])
        self.values, self.vectors = np.linalg.eigh(self.covariance)
        self.mean = np.linspace(-0.5, 0.5, shape[1])

    def __call__(self, x: np.ndarray, t: float, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        level = at(self.schedule, t)
        shrunk = level.sigma / (level.alpha**2 * self.values + level.sigma**2)
        inverse = (self.vectors * shrunk) @ self.vectors.T
        return (x - level.alpha * self.mean) @ inverse, v @ inverse

    def exact(self, x: np.ndarray) -> np.ndarray:
        """Return log p of data, by the affine map between the two ends."""
        low, high = at(self.schedule, self.schedule.t_min), at(self.schedule, self.schedule.t_max)
        values, vectors = self.values, self.vectors
        stretch = np.sqrt((high.alpha**2 * values + high.sigma**2) / (low.alpha**2 * values + low.sigma**2))
        turned = (low.alpha * (x - self.mean)) @ vectors * stretch
        noise = (turned @ vectors.T + high.alpha * self.mean) / unit(self.schedule)
        gained = np.log(stretch).sum() + len(values) * (np.log(low.alpha) - np.log(unit(self.schedule)))
        return -0.5 * (noise**2).sum(axis=1) - 0.5 * len(values) * LOG_2PI + gained


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("name", ["ve", "vp-linear", "sub-vp"])
def test_hutchinson_s_mean_lies_within_its_error(name: str, probe: str) -> None:
    product = Tilted(make_schedule(name), (2, 4))
    x = data((2, 4))
    found = likelihood(product, x, probes=100, probe=probe, course=Course("RK45", 1e-4, 1e-4, None, 400_000))
    assert np.all(np.abs(found.log_p - product.exact(x)) < 4 * found.error)
    assert np.all((found.error > 1e-3) & (found.error < 3.0))
    assert found.report.calls == product.calls
    assert product.calls % 100 == 0


def test_signs_of_all_kinds_give_the_trace_itself() -> None:
    product = Tilted(make_schedule("vp-linear"), (1, 2))
    course = Course("DOP853", 1e-7, 1e-7)
    both = [likelihood(product, data((1, 2)), seed=seed, course=course).log_p[0] for seed in range(8)]
    kinds = sorted({round(value, 5) for value in both})
    # v^T J v has two values, for signs that are equal and that are not, and the trace is their mean
    assert len(kinds) == 2
    assert np.mean(kinds) == pytest.approx(product.exact(data((1, 2)))[0], abs=5e-5)


def test_the_seed_decides_the_probes() -> None:
    product = Tilted(make_schedule("vp-linear"), (2, 4))
    course = Course("RK45", 1e-4, 1e-4)
    once, again, other = (likelihood(product, data((2, 4)), seed=s, course=course).log_p for s in (3, 3, 4))
    np.testing.assert_array_equal(once, again)
    assert np.all(once != other)


def test_torch_with_its_own_gradients_through_solve_ivp_agrees() -> None:
    """Song et al.'s likelihood for the VP SDE, written out for a small network, with the same probe."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).double()
    schedule = make_schedule("vp-linear")

    def score(x: torch.Tensor, t: float) -> torch.Tensor:
        return net(torch.cat([x, torch.full((len(x), 1), t, dtype=torch.float64)], dim=1)) - x

    class Learned:
        precision, prediction, shape = "fp64", "score", (2, 3)

        def __init__(self) -> None:
            self.schedule = schedule

        def __call__(self, x: np.ndarray, t: float, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            given = torch.tensor(x, requires_grad=True)
            out = score(given, t)
            (vjp,) = torch.autograd.grad(out, given, torch.from_numpy(v))
            return out.detach().numpy(), vjp.numpy()

    x = data((2, 3))
    found = likelihood(Learned(), x, "t", course=Course("RK45", 1e-8, 1e-8, None, 50_000), seed=7)
    probe = torch.tensor(np.where(np.random.default_rng([7, 0]).standard_normal((1, 2, 3))[0] < 0, -1.0, 1.0))

    def field(t: float, y: np.ndarray) -> np.ndarray:
        state = torch.tensor(y[:6].reshape(2, 3), requires_grad=True)
        beta = 0.1 + 19.9 * t
        drift = -0.5 * beta * state - 0.5 * beta * score(state, t)
        (row,) = torch.autograd.grad((drift * probe).sum(), state)
        return np.concatenate([drift.detach().numpy().reshape(-1), (row * probe).sum(dim=1).numpy()])

    alpha = float(schedule.alpha(schedule.t_min))
    peer = solve_ivp(field, (1e-3, 1.0), np.append(alpha * x, np.zeros(2)), rtol=1e-8, atol=1e-8).y[:, -1]
    expected = -0.5 * (peer[:6].reshape(2, 3) ** 2).sum(1) - 1.5 * LOG_2PI + peer[6:] + 3 * np.log(alpha)
    np.testing.assert_allclose(found.log_p, expected, atol=1e-6)


def test_the_bound_is_kept_with_several_probes() -> None:
    product = Tilted(make_schedule("vp-linear"), (2, 4))
    with pytest.raises(BudgetError, match="within 100 network calls") as caught:
        likelihood(product, data((2, 4)), probes=7, course=Course("RK45", 1e-6, 1e-6, None, 100))
    assert product.calls == caught.value.report.calls == 98
    assert caught.value.samples.shape == (2, 4)
    with pytest.raises(OptionError, match="calls the network once a probe"):
        likelihood(product, data((2, 4)), probes=101, course=Course(max_calls=100))


def test_levels_are_filled_evenly() -> None:
    grey = np.repeat(np.arange(4), 5000) / 1.5 - 1  # -1, -1/3, 1/3, 1
    filled = fill_levels(grey, (-1.0, 1.0), 4, np.random.default_rng(0))
    assert -1 <= filled.min() < -0.99
    assert 0.99 < filled.max() < 1
    assert np.histogram(filled, 4, (-1, 1))[0].tolist() == [5000] * 4
    assert abs(filled.mean()) < 0.02
    with pytest.raises(ArrayError, match="outside the bundle's range") as caught:
        fill_levels(np.array([0.0, 1.5]), (-1.0, 1.0), 4, np.random.default_rng(0))
    assert "0 to 1.5" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"probes": 0}, "probes is out of range"),
        ({"probe": "sphere"}, "probe has a value that is not possible"),
        ({"seed": -1}, "seed is out of range"),
        ({"levels": 1}, "levels is out of range"),
        ({"start": 0.0}, "a time is outside the schedule"),
        ({"course": Course("RK4")}, "method has a value that is not possible"),
    ],
)
def test_bad_requests_are_refused(options: dict[str, Any], text: str) -> None:
    product = ExactProduct(GAUSS, make_schedule("vp-linear"), "epsilon", SHAPE)
    with pytest.raises(OptionError) as caught:
        likelihood(product, data(), **options)
    assert text in str(caught.value)
    assert product.calls == 0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of four nodes, eps = K x + t / 2000 + table[label], with its product K^T v."""
    return add_vjp(write_bundle(tmp_path_factory.mktemp("bundle") / "linear", labels=True))


def linear(x: np.ndarray, label: float) -> np.ndarray:
    """Return log p under that network but for the trace, which is known: tr K = 64 * 0.4."""
    from dpmrt.solvers_np import schedule_from_diffusers

    with load("digits") as pipeline:
        schedule = schedule_from_diffusers(pipeline.bundle.scheduler_config)

    def field(lambda_: float, y: np.ndarray) -> np.ndarray:
        level = schedule.level(lambda_)
        z = y[:-1].reshape(-1, 64)
        eps = z @ KERNEL_MATRIX.T + level.t / 2000 + label
        spread = 64 * level.sigma**2 - level.sigma * np.trace(KERNEL_MATRIX)
        return np.append((level.sigma**2 * z - level.sigma * eps).reshape(-1), spread)

    alpha = float(schedule.alpha(0))
    span = [float(schedule.lambda_(t)) for t in (0.0, 999.0)]
    y = solve_ivp(field, span, np.append(alpha * x, 0.0), method="DOP853", rtol=1e-7, atol=1e-7).y[:, -1]
    noise = y[:-1].reshape(-1, 64)
    return -0.5 * (noise**2).sum(1) - 32 * LOG_2PI + y[-1] + 64 * np.log(alpha)


def test_a_bundle_s_likelihood_is_that_of_its_network(bundle: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (3, 1, 8, 8)).astype(np.float32)
    with load(bundle) as pipeline:
        found = pipeline.log_likelihood(x, label=1, probes=40, rtol=1e-4, atol=1e-4)
        other = pipeline.log_likelihood(x, rtol=1e-4, atol=1e-4)
        half = pipeline.log_likelihood(x[:1], conditions={"class_labels": [1]}, rtol=1e-4, atol=1e-4)
    exact = linear(x, -0.2)
    assert np.all(np.abs(found.log_p - exact) < 4 * found.error + 0.02)
    assert np.all(np.abs(other.log_p - found.log_p) > 1)
    assert abs(half.log_p[0] - exact[0]) < 4 * np.sqrt(40) * found.error[0]
    np.testing.assert_allclose(found.bits_per_dim, -found.log_p / (64 * np.log(2)) + 7)
    assert (found.data_range, found.levels, found.offset, found.dequantized) == ((-1.0, 1.0), 256, 7.0, False)


def test_a_bundle_without_the_graph_says_how_to_make_one() -> None:
    with load("digits") as pipeline, pytest.raises(BundleError, match="no vector-Jacobian graph") as caught:
        pipeline.log_likelihood(np.zeros((1, 1, 16, 16), np.float32))
    assert "dpmrt export SOURCE -o BUNDLE --vjp" in str(caught.value)


def test_data_and_options_are_held_against_the_bundle(bundle: Path) -> None:
    x = np.zeros((2, 1, 8, 8), np.float32)
    with load(bundle) as pipeline:
        for bad, error, text in (
            (x[0], ArrayError, "the data are no batch of samples"),
            (x[:, :, :4], ArrayError, "8"),
            (np.full_like(x, np.nan), ArrayError, "the data hold NaN or infinity"),
            (x.astype(complex), ArrayError, "the data are no batch of samples"),
        ):
            with pytest.raises(error, match=text):
                pipeline.log_likelihood(bad)
        for options, text in (
            ({"steps": 5}, "a likelihood has no option of this name"),
            ({"label": 7}, "label"),
            ({"rtol": 1e-9, "atol": 1e-9}, "not precise enough"),
            ({"callback": 3}, "callback cannot be called"),
        ):
            with pytest.raises(OptionError, match=text):
                pipeline.log_likelihood(x, **options)  # type: ignore[arg-type]


def test_the_command_line_writes_nats_and_bits(bundle: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dpmrt.runtime.cli import main

    x = np.random.default_rng(1).uniform(-1, 1, (5, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    asked = ["likelihood", str(bundle), "--data", str(tmp_path / "x.npy"), "--label", "0,1,2,0,1", "--batch", "2"]
    asked += ["--option", "rtol=1e-3", "--option", "atol=1e-3", "--progress"]
    done = CliRunner().invoke(main, [*asked, "-o", str(tmp_path / "a.json"), "--probes", "2", "--dequantize"])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "a.json").read_text())
    assert len(told["log_p"]) == len(told["error"]) == len(told["bits_per_dim"]) == 5
    assert told["calls"] == sum(report["calls"] for report in told["reports"])
    assert len(told["reports"]) == 3
    assert told["dequantized"] is True
    assert f"{told['calls']} network calls" in done.output
    done = CliRunner().invoke(main, [*asked, "-o", str(tmp_path / "a.npy")])
    assert done.exit_code == 0, done.output
    with load(bundle) as pipeline:
        last = pipeline.log_likelihood(x[4:], label=[1], seed=4, rtol=1e-3, atol=1e-3)
    nats = np.load(tmp_path / "a.npy")
    assert nats.dtype == np.float64
    assert nats[4] == pytest.approx(last.log_p[0], abs=1e-9)
    for extra, text in (
        (["-o", str(tmp_path / "a.txt")], "ends in .npy or .json"),
        (["-o", str(tmp_path / "b.npy"), "--label", "1,2"], "--label does not fit the data"),
        (["-o", str(tmp_path / "b.npy"), "--option", "max_calls=5"], "not solved within 5 network calls"),
    ):
        done = CliRunner().invoke(main, [*asked, *extra])
        assert done.exit_code == 1
        assert text in done.output


def test_a_perfect_model_s_own_samples_are_likely() -> None:
    """The mean of -log p over samples is their entropy, here of one Gaussian an entry."""
    schedule = make_schedule("vp-linear")
    x = GAUSS.mean[0] + GAUSS.spread[0] * np.random.default_rng(8).standard_normal((2000, 1))
    found = likelihood(ExactProduct(GAUSS, schedule, "epsilon", x.shape), x, course=Course("RK45", 1e-5, 1e-5))
    entropy = 0.5 * (1 + LOG_2PI) + np.log(GAUSS.spread[0])
    assert -found.log_p.mean() == pytest.approx(entropy, abs=4 * found.log_p.std() / np.sqrt(2000))
