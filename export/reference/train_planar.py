"""Training of the small networks of points in the plane, into a folder that `dpmrt export` reads by a factory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dpmrt.export.folders import new_folder
from dpmrt.export.reference import planar
from dpmrt.export.reference.loop import Progress, TrainOptions, fit
from dpmrt.export.reference.mixtures import PLANAR
from dpmrt.export.reference.objectives import Objective, make_objective
from dpmrt.export.reference.records import TRAINING_NAME, training_files, write_training
from dpmrt.export.schedulers import write_scheduler

#: what makes them good in seconds
OPTIONS: dict[str, Any] = {"steps": 600, "batch": 512, "lr": 4e-3, "warmup": 50, "ema": 0.99, "threads": 1}
SIGMA_MAX = 10.0
DATASET = "dpmrt.export.reference.mixtures:PLANAR (50,000 samples)"
_SAMPLES = 50_000
_WEIGHTS = "model.safetensors"


def train_planar(
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    loss: str = "ddpm",
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train a network of the mixture PLANAR to a loss of OBJECTIVES; write weights, `scheduler/` and `training.json`.

    Nothing appears at `out` until the training has ended; an interrupted one leaves nothing behind.
    """
    options = options or TrainOptions(**OPTIONS)
    objective = make_objective(loss, sigma_max=SIGMA_MAX)
    with new_folder(Path(out), marker=TRAINING_NAME, written=training_files, force=force) as folder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            factory, spec = _made_by(objective)
            model = getattr(planar, factory)()
        fitted = fit(model, _loss(model, objective, options.batch), options, on_progress)
        save_file({k: v.contiguous() for k, v in fitted.model.state_dict().items()}, folder / _WEIGHTS)
        write_scheduler(objective.scheduler, folder / "scheduler")
        write_training(
            folder,
            "planar",
            options,
            fitted,
            dataset=DATASET,
            loss=loss,
            noise=dict(objective.scheduler),
            factory=f"{planar.__name__}:{factory}",
            spec=f"{planar.__name__}:{spec}",
        )
    return Path(out)


def export_arguments(folder: str | Path, loss: str) -> dict[str, str]:
    """Return what `export_bundle` takes, and `dpmrt export` by options of these names, to export a planar network.

    >>> export_arguments("plane", "vp")["source"]
    'dpmrt.export.reference.planar:make'
    """
    factory, spec = _made_by(make_objective(loss, sigma_max=SIGMA_MAX))
    return {
        "source": f"{planar.__name__}:{factory}",
        "spec": f"{planar.__name__}:{spec}",
        "weights": str(Path(folder) / _WEIGHTS),
        "scheduler": str(Path(folder) / "scheduler"),
    }


def _made_by(objective: Objective) -> tuple[str, str]:
    if objective.by_sigma:
        return "make_by_sigma", "SPEC_BY_SIGMA"
    if objective.learned_variance:
        return "make_learned_variance", "SPEC_LEARNED_VARIANCE"
    return "make", "SPEC"


def _loss(model: torch.nn.Module, objective: Objective, batch: int) -> Callable[[torch.Generator], torch.Tensor]:
    points = torch.from_numpy(PLANAR.sample(_SAMPLES, seed=0)).float()

    def loss(generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(points), (batch,), generator=generator)
        t = objective.times(batch, generator)
        noise = torch.randn(batch, points.shape[1], generator=generator)
        return objective.loss(model, points[pick], t, noise)

    return loss
