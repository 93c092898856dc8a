"""DPM-Solver-12 and -23 take the steps of an independent torch implementation, and arrive where it does."""

from __future__ import annotations

from typing import Any

import adaptive_reference as reference
import numpy as np
import pytest
import torch
from problems import Mixture, network

from dpmrt.solvers_np import make_schedule
from dpmrt.solvers_np.adaptive import AdaptiveReport, run_adaptive

WEIGHT, MEAN, SPREAD = [0.35, 0.65], [-1.1, 0.8], [0.45, 0.6]
OURS = Mixture(np.array(WEIGHT), np.array(MEAN), np.array(SPREAD))
THEIRS = reference.Mixture(*(torch.tensor(v, dtype=torch.float64) for v in (WEIGHT, MEAN, SPREAD)))
VP = make_schedule("vp-linear")
START, END = 1.0, 1e-3
X = np.random.default_rng(0).standard_normal((4, 3, 5))
CASES = [
    ("dpm-solver-12", 2, "eps"),
    ("dpm-solver-23", 3, "eps"),
    ("dpm-solver++12", 2, "x0"),
    ("dpm-solver++23", 3, "x0"),
]


def check_steps(report: AdaptiveReport, found: reference.Found) -> None:
    t, h, error, accepted = (np.array(column) for column in zip(*found.steps))
    np.testing.assert_array_equal(report.outcome == "accepted", accepted)
    # where an error is next to nothing, its rounding goes into the size of the next step
    np.testing.assert_allclose(report.t, t, rtol=1e-6)
    np.testing.assert_allclose(report.h, h, rtol=2e-6)
    np.testing.assert_allclose(report.error, error, rtol=1e-5, atol=1e-8)
    assert report.calls == found.calls - report.count("rejected"), "a rejected step's first call is not made again"
    assert report.kept


@pytest.mark.parametrize(("rtol", "atol"), [(0.05, 0.0078), (1e-3, 1e-3), (1e-4, 1e-5)])
@pytest.mark.parametrize("kind", ["midpoint", "heun"])
@pytest.mark.parametrize(("solver", "order", "buffers"), CASES)
def test_the_authors_steps(solver: str, order: int, buffers: str, kind: str, rtol: float, atol: float) -> None:
    pair = reference.pair(THEIRS, order, buffers, kind)
    found = reference.authors(torch.tensor(X), START, END, pair, order, atol, rtol, h=0.05, theta=0.9)
    options = {"rtol": rtol, "atol": atol, "solver_type": kind, "t_end": END, "max_calls": 5000}
    samples, report = run_adaptive(solver, network(OURS, VP, "epsilon"), VP, X, **options)
    check_steps(report, found)
    np.testing.assert_allclose(samples, found.x.numpy(), rtol=1e-9, atol=1e-9)
    assert 0 < report.count("rejected") < report.count("accepted")


@pytest.mark.parametrize("prediction", ["sample", "v_prediction", "score", "flow"])
@pytest.mark.parametrize(("solver", "order", "buffers"), CASES)
def test_whatever_the_network_predicts(solver: str, order: int, buffers: str, prediction: str) -> None:
    pair = reference.pair(THEIRS, order, buffers, "midpoint")
    found = reference.authors(torch.tensor(X), START, END, pair, order, 1e-3, 1e-2, h=0.2, theta=0.8)
    options = {"rtol": 1e-2, "atol": 1e-3, "h_init": 0.2, "theta": 0.8, "t_end": END}
    model = network(OURS, VP, prediction)
    samples, report = run_adaptive(solver, model, VP, X, prediction=prediction, **options)
    check_steps(report, found)
    np.testing.assert_allclose(samples, found.x.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "pid",
    [{}, {"pcoeff": 0.4, "icoeff": 0.6}, {"pcoeff": 0.2, "icoeff": 0.5, "dcoeff": 0.1, "accept_safety": 0.7}],
    ids=["default", "pi", "pid"],
)
@pytest.mark.parametrize("order", [2, 3])
def test_k_diffusions_steps(order: int, pid: dict[str, Any]) -> None:
    x_bar = X / reference.alpha(START)
    found = reference.k_diffusion(torch.tensor(x_bar), START, END, THEIRS, order, 0.0078, 0.05, h=0.05, **pid)
    # k-diffusion's state is divided by alpha, and its error is that of the whole batch
    schedule = VP.exploding()
    model = network(OURS, schedule, "epsilon")
    options = {"controller": "pid", "norm": "rms", "t_end": END, **pid}
    samples, report = run_adaptive(f"dpm-solver-{order - 1}{order}", model, schedule, x_bar, **options)
    check_steps(report, found)
    np.testing.assert_allclose(samples, found.x.numpy(), rtol=1e-9, atol=1e-9)
