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
from dpmrt.export.reference.records import TRAINING_NAME, training_files, write_training

CLASS_DROPOUT = 0.12


def train_unet(
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    class_dropout: float = CLASS_DROPOUT,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train the reference UNet and write `unet/`, `scheduler/` and `training.json` under `out`.

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
    with new_folder(Path(out), marker=TRAINING_NAME, written=training_files, force=force) as folder:
        model = unet.build_unet(options.seed).to(memory_format=torch.channels_last)
        fitted = fit(model, _epsilon_loss(model, options.batch, class_dropout), options, on_progress)
        # safetensors stores row-major tensors only.
        average = fitted.model.to(memory_format=torch.contiguous_format)
        average.save_pretrained(str(folder / "unet"), safe_serialization=True)
        unet.sampling_scheduler().save_pretrained(str(folder / "scheduler"))
        write_training(
            folder,
            "unet",
            options,
            fitted,
            null_class=unet.NULL_CLASS,
            class_dropout=class_dropout,
            noise=dict(unet.NOISE_CONFIG),
        )
    return Path(out)


def _epsilon_loss(
    model: torch.nn.Module, batch: int, class_dropout: float
) -> Callable[[torch.Generator], torch.Tensor]:
    digits = load_digits()
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    signal = unet.alphas_cumprod()

    def loss(generator: torch.Generator) -> torch.Tensor:
        pick = torch.randint(len(images), (batch,), generator=generator)
        t = torch.randint(len(signal), (batch,), generator=generator)
        dropped = torch.rand(batch, generator=generator) < class_dropout
        noise = torch.randn(batch, *images.shape[1:], generator=generator)
        alpha = signal[t].sqrt()[:, None, None, None]
        sigma = (1 - signal[t]).sqrt()[:, None, None, None]
        y = labels[pick].masked_fill(dropped, unet.NULL_CLASS)
        predicted = model(alpha * images[pick] + sigma * noise, t, y).sample
        return torch.nn.functional.mse_loss(predicted, noise)

    return loss
