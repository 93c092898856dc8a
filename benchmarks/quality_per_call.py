"""Quality for each network call, over solvers and budgets of calls: the table and the picture of docs/quality.md.

python benchmarks/quality_per_call.py                        print it
python benchmarks/quality_per_call.py --samples 200 --write  put it into docs/quality.md, and draw docs/quality.png

Digits: the shipped bundle, unguided, by the Frechet distance of a reader's features to the data and by the share that
it reads as the class asked for. Mixtures: exact scores of a Gaussian mixture, in one dimension by the 2-Wasserstein
distance to its quantiles, in two by its mean over directions, in each of which the quantiles are known as well.
Every solver starts from the same noise. A cell that is in --results already is not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import table
from scipy.special import ndtr, ndtri

from dpmrt.engines import shipped_bundle
from dpmrt.errors import DpmrtError
from dpmrt.export.reference.mixtures import PLANAR, GaussianMixture
from dpmrt.runtime import load
from dpmrt.solvers_np import StepPlan, compile_plan, make_schedule, run_plan

ROOT = Path(__file__).resolve().parent.parent
PAGE, PICTURE = ROOT / "docs/quality.md", ROOT / "docs/quality.png"
BEGIN, END = "<!-- table: python benchmarks/quality_per_call.py --samples 200 --write -->", "<!-- end of table -->"
CHECKPOINTS = shipped_bundle("digits").parent / "checkpoints"

BUDGETS = (5, 10, 20, 50, 100)
#: a label, a solver and its options; one of each family
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("ddim", {}),
    "DPM-Solver++(2M)": ("dpmsolver++", {}),
    "DPM-Solver++(2M), Karras": ("dpmsolver++", {"grid": "karras"}),
    "DPM-Solver++(3M)": ("dpmsolver++", {"order": 3}),
    "UniPC-2": ("unipc", {}),
    "DEIS": ("deis", {}),
    "Heun": ("heun", {}),
    "DDPM": ("ddpm", {}),
    "SDE-DPM-Solver++(2M)": ("sde-dpmsolver++", {}),
    "SA-Solver": ("sa-solver", {}),
}
LINE = GaussianMixture(np.array([0.35, 0.65]), np.array([[-1.1], [0.8]]), np.array([[[0.05]], [[0.2]]]))
MIXTURE_SAMPLES, DIRECTIONS, BATCH = 20_000, 32, 100
MEASURES = ("frechet", "read", "line", "plane")
HEADS = {
    "frechet": "Digits: Frechet distance to the data",
    "read": "Digits: read as asked, %",
    "line": "Mixture in one dimension: W2, in thousandths",
    "plane": "Mixture in the plane: sliced W2, in thousandths",
}
Results = dict[str, dict[str, float]]


def plan_within(compile_steps: Callable[[int], StepPlan], budget: int) -> StepPlan | None:
    """Return the plan of most steps that calls the network no more often than the budget."""
    for steps in range(budget, 0, -1):
        try:
            plan = compile_steps(steps)
        except DpmrtError:
            continue
        if plan.calls <= budget:
            return plan
    return None


def quantiles(mixture: GaussianMixture, direction: np.ndarray, count: int) -> np.ndarray:
    """The exact quantiles at (i + 1/2) / count of the mixture seen along a direction, by bisection."""
    mean = mixture.means @ direction
    spread = np.sqrt(np.einsum("i,kij,j->k", direction, mixture.covariances, direction))
    wanted = (np.arange(count) + 0.5) / count
    low, high = np.full(count, (mean - 8 * spread).min()), np.full(count, (mean + 8 * spread).max())
    for _ in range(50):
        middle = (low + high) / 2
        below = ndtr((middle[:, None] - mean) / spread) @ mixture.weights < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


class Mixtures:
    """Samples of a mixture with its exact score, and their distance to it."""

    def __init__(self, mixture: GaussianMixture) -> None:
        self.mixture = mixture
        self.schedule = make_schedule("linear")
        size = mixture.means.shape[1]
        angles = np.pi * (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS
        self.directions = np.ones((1, 1)) if size == 1 else np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self.exact = [quantiles(mixture, direction, MIXTURE_SAMPLES) for direction in self.directions]
        if size == 1:
            # even quantiles: what remains is the solver's error alone, where it adds no noise
            self.start = ndtri((np.arange(MIXTURE_SAMPLES) + 0.5) / MIXTURE_SAMPLES)[:, None]
        else:
            self.start = np.random.default_rng(0).standard_normal((MIXTURE_SAMPLES, size))

    def distance(self, samples: np.ndarray) -> float:
        squares = [
            ((np.sort(samples @ direction) - exact) ** 2).mean()
            for direction, exact in zip(self.directions, self.exact)
        ]
        return 1000 * float(np.sqrt(np.mean(squares)))

    def of_data(self) -> float:
        """What exact samples have: the root of the mean square over ten draws, which differ much."""
        draws = [self.distance(self.mixture.sample(MIXTURE_SAMPLES, seed=seed)) for seed in range(10)]
        return float(np.sqrt(np.mean(np.square(draws))))

    def sample(self, plan: StepPlan) -> np.ndarray:
        def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
            alpha, sigma = float(self.schedule.alpha(t[0])), float(self.schedule.sigma(t[0]))
            state = x / float(np.sqrt(in_scale[float(t[0])]))
            return self.mixture.epsilon(state, alpha, sigma)

        in_scale = {float(t): float(s) ** 2 for t, s in zip(plan.t, plan.in_scale)}
        noise = np.random.default_rng(1)
        return run_plan(plan, model, plan.init_scale * self.start, noise=noise.standard_normal)

    def measure(self, solver: str, options: dict[str, Any], budget: int) -> float | None:
        plan = plan_within(lambda steps: compile_plan(solver, self.schedule, steps, **options), budget)
        return None if plan is None else self.distance(self.sample(plan))


class Digits:
    """Samples of the shipped digits, and what a reader makes of them."""

    def __init__(self, samples: int) -> None:
        import torch

        from dpmrt.export.reference.classifiers import load_reader
        from dpmrt.export.reference.digits import load_digits

        torch.set_num_threads(1)
        self.reader = load_reader(CHECKPOINTS / "digits-reader")
        self.real, self.real_labels = load_digits()
        self.features = self.reader.features(self.real)
        self.labels = np.arange(samples) % 10
        self.pipeline = load("digits")

    def judge(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        from dpmrt.export.reference.quality import frechet_distance, read_share

        distance = frechet_distance(self.reader.features(images), self.features)
        return {"frechet": distance, "read": 100 * read_share(images, labels, self.reader)}

    def measure(self, solver: str, options: dict[str, Any], budget: int) -> dict[str, float]:
        plan = plan_within(lambda steps: self.pipeline.plan(steps, solver, **options), budget)
        if plan is None:
            return {}
        parts = [
            self.pipeline.sample(len(part), plan=plan, seed=int(part[0]) + k, guidance=1.0, label=part.tolist())
            for k, part in enumerate(np.array_split(self.labels, max(1, len(self.labels) // BATCH)))
        ]
        return self.judge(np.concatenate(parts), self.labels)

    def of_data(self) -> dict[str, float]:
        """What as many real digits are given, as many of each class."""
        order = np.random.default_rng(0).permutation(len(self.real))
        of_class = [order[self.real_labels[order] == digit] for digit in range(10)]
        chosen = np.array([of_class[digit][k // 10] for k, digit in enumerate(self.labels)])
        return self.judge(self.real[chosen], self.labels)


def measure(samples: int, kept: Path) -> Results:
    """Fill in what is not in the file of results yet; it is written after every cell."""
    results: Results = json.loads(kept.read_text()) if kept.is_file() else {}

    def put(key: str, found: dict[str, float] | None) -> None:
        results[key] = {**results.get(key, {}), **(found or {})}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(results, indent=1) + "\n")
        print(key, results[key], flush=True)

    parts = {"line": Mixtures(LINE), "plane": Mixtures(PLANAR)}
    for name, part in parts.items():
        if name not in results.get("data", {}):
            put("data", {name: part.of_data()})
        for label, (solver, options) in SOLVERS.items():
            for budget in BUDGETS:
                if name not in results.get(f"{label} {budget}", {}):
                    found = part.measure(solver, options, budget)
                    put(f"{label} {budget}", {} if found is None else {name: found})
    digits = Digits(samples)
    if "frechet" not in results["data"]:
        put("data", digits.of_data())
    for budget in BUDGETS:
        for label, (solver, options) in SOLVERS.items():
            if "frechet" not in results.get(f"{label} {budget}", {}):
                put(f"{label} {budget}", digits.measure(solver, options, budget))
    digits.pipeline.close()
    return results


def rows_of(results: Results, measure: str) -> list[list[str]]:
    """Return a row a solver: its figure for every budget; the last row is what exact samples get."""
    digits = {"frechet": 2, "read": 1, "line": 0, "plane": 0}[measure]

    def cell(key: str) -> str:
        value = results.get(key, {}).get(measure)
        return "" if value is None else f"{value:,.{digits}f}"

    rows = [[label, *(cell(f"{label} {budget}") for budget in BUDGETS)] for label in SOLVERS]
    return [*rows, ["samples of the data", cell("data"), *[""] * (len(BUDGETS) - 1)]]


def markdown(results: Results) -> str:
    parts = []
    for name in MEASURES:
        heads = [HEADS[name], *(f"{budget} calls" for budget in BUDGETS)]
        lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows_of(results, name))]
        parts.append("\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]]))
    return "\n\n".join(parts)


def draw(results: Results) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), layout="constrained")
    for axes, name in zip(figure.subplots(2, 2).flat, MEASURES):
        for number, label in enumerate(SOLVERS):
            points = [(budget, results.get(f"{label} {budget}", {}).get(name)) for budget in BUDGETS]
            known = [(budget, value) for budget, value in points if value is not None]
            style = "s--" if number > 6 else "o-"
            axes.plot(*zip(*known), style, markersize=4, linewidth=1.4, label=label, color=f"C{number}")
        axes.axhline(results["data"][name], color="0.4", linewidth=1, linestyle=":", label="samples of the data")
        axes.set(title=HEADS[name], xlabel="network calls", xscale="log")
        axes.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
        axes.minorticks_off()
        if name != "read":
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(PICTURE, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=500, help="digits a cell")
    parser.add_argument("--results", type=Path, help="where cells are kept  [build/quality-SAMPLES.json]")
    parser.add_argument(
        "--write", action="store_true", help="put the table into docs/quality.md, and draw the picture"
    )
    parser.add_argument("--kept", action="store_true", help="show what is kept, and measure nothing")
    options = parser.parse_args()
    kept = options.results or ROOT / f"build/quality-{options.samples}.json"
    results = json.loads(kept.read_text()) if options.kept else measure(options.samples, kept)
    for name in MEASURES:
        table(HEADS[name], ["solver", *(str(budget) for budget in BUDGETS)], rows_of(results, name))
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{markdown(results)}\n\n{END}{rest.partition(END)[2]}")
        draw(results)


if __name__ == "__main__":
    main()
