"""Two Gaussians in the plane, one a class: scores, posteriors and what a perfect network says, in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpmrt.solvers_np import StepPlan

MEANS = np.array([[1.0, -0.5], [-0.8, 0.9]])
COVS = np.array([[[0.30, 0.10], [0.10, 0.20]], [[0.15, -0.05], [-0.05, 0.40]]])
WEIGHTS = np.array([0.35, 0.65])


def class_scores(x: Any, alpha: float, sigma: float) -> tuple[Any, Any]:
    """Return log w_c p_c(x) and its gradient, (classes, batch) and (classes, batch, 2), of alpha x0 + sigma eps."""
    logs, grads = [], []
    for mean, cov, weight in zip(MEANS, COVS, WEIGHTS):
        total = alpha**2 * cov + sigma**2 * np.eye(2)
        away = x - alpha * mean
        pull = np.linalg.solve(total, away.T).T
        logs.append(np.log(weight) - 0.5 * (away * pull).sum(axis=1) - 0.5 * np.log(np.linalg.det(total)))
        grads.append(-pull)
    return np.stack(logs), np.stack(grads)


def score(x: Any, alpha: float, sigma: float, label: int | None = None) -> Any:
    """Return the score of the mixture, or of one class."""
    logs, grads = class_scores(x, alpha, sigma)
    if label is not None:
        return grads[label]
    share = np.exp(logs - logs.max(axis=0))
    share /= share.sum(axis=0)
    return (share[..., None] * grads).sum(axis=0)


def log_posterior_gradient(x: Any, alpha: float, sigma: float, label: int) -> Any:
    """Return the gradient of log p(label | x): the class's score less the mixture's."""
    return score(x, alpha, sigma, label) - score(x, alpha, sigma)


class Network:
    """A perfect network for a plan's rows, of the mixture or of one class, that predicts what it is asked to."""

    def __init__(self, plan: StepPlan, prediction: str, label: int | None = None) -> None:
        self._plan, self._prediction, self._label = plan, prediction, label
        self._rows = iter(np.flatnonzero(plan.out >= 0).tolist())

    def __call__(self, shown: Any, t: Any) -> Any:
        row = next(self._rows)
        alpha, sigma, scale = (float(c[row]) for c in (self._plan.alpha, self._plan.sigma, self._plan.in_scale))
        x = shown / scale
        eps = -sigma * score(x, alpha, sigma, self._label)
        x0 = (x - sigma * eps) / alpha
        if self._prediction == "edm":
            spread = 1 / scale**2 - sigma**2
            return (x0 - spread * scale**2 * x) / (sigma * np.sqrt(spread) * scale)
        return {
            "epsilon": eps,
            "sample": x0,
            "v_prediction": scale * (alpha * eps - sigma * x0),
            "flow": eps - x0,
            "score": -eps / (sigma * scale),
        }[self._prediction]


def judge(plan: StepPlan, label: int) -> Any:
    """Return gradient(x, t) of a perfect classifier, which reads what the network reads."""
    rows = np.flatnonzero(plan.out >= 0)
    levels = {float(plan.t[r]): (plan.alpha[r] * plan.in_scale[r], plan.sigma[r] * plan.in_scale[r]) for r in rows}
    return lambda x, t: log_posterior_gradient(x, *levels[t], label)
