"""Training of the reference UNet, into a folder laid out as a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from dpmrt.errors import OptionError
from dpmrt.export.folders import new_folder
from dpmrt.export.reference import unet
from dpmrt.export.reference.digits import load_digits
from dpmrt.export.reference.loop import Progress, TrainOptions, fit
from dpmrt.export.reference.objectives import Objective, make_objective
from dpmrt.export.reference.records import DIGITS, TRAINING_NAME, training_files, write_training
from dpmrt.export.schedulers import write_scheduler

CLASS_DROPOUT = 0.12
#: half of the greatest distance between two images of 256 pixels in [-1, 1], and more than is between most
SIGMA_MAX = 20.0


def train_unet(
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    loss: str = "ddpm",
    class_dropout: float = CLASS_DROPOUT,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train the reference UNet to a loss of OBJECTIVES; write `unet/`, `scheduler/` and `training.json` under `out`.

    Nothing appears at `out` until the training has ended; an interrupted one leaves nothing behind.
    """
    options = options or TrainOptions()
    if not 0 <= class_dropout < 1:
        raise OptionError(
            "class_dropout is out of range",
            got=class_dropout,
            expected="0 to less than 1",
            fix=f"pass --class-dropout {CLASS_DROPOUT}",
        )
    objective = make_objective(loss, sigma_max=SIGMA_MAX)
    with new_folder(Path(out), marker=TRAINING_NAME, written=training_files, force=force) as folder:
        model = unet.build_unet(
            options.seed, by_sigma=objective.by_sigma, learned_variance=objective.learned_variance
        ).to(memory_format=torch.channels_last)
        fitted = fit(model, _loss(model, objective, options.batch, class_dropout), options, on_progress)
        # safetensors stores row-major tensors only.
        average = fitted.model.to(memory_format=torch.contiguous_format)
        average.save_pretrained(str(folder / "unet"), safe_serialization=True)
        write_scheduler(objective.scheduler, folder / "scheduler")
        write_training(
            folder,
            "unet",
            options,
            fitted,
            **DIGITS,
            null_class=unet.NULL_CLASS,
            class_dropout=class_dropout,
            loss=loss,
            noise=dict(objective.scheduler),
        )
    return Path(out)


def _loss(
    model: torch.nn.Module, objective: Objective, batch: int, class_dropout: float
) -> Callable[[torch.Generator], torch.Tensor]:
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)

    def loss(generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(images), (batch,), generator=generator)
        t = objective.times(batch, generator)
        dropped = torch.rand(batch, generator=generator) < class_dropout
        noise = torch.randn(batch, *images.shape[1:], generator=generator)
        y = labels[pick].masked_fill(dropped, unet.NULL_CLASS)
        return objective.loss(lambda x, t: model(x, t, y).sample, images[pick], t, noise)

    return loss
