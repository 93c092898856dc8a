"""The gradient of log p(y | x_t) in x_t: as a module, and traced to a graph of forward operators."""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import ir

from dpmrt.errors import ExportError
from dpmrt.export.classifier.load import ClassifierSource
from dpmrt.export.gradients import Backward, trace_backward
from dpmrt.export.gradients.trace import TRACED_BATCH

INPUTS = ("sample", "timestep", "class_labels")
OUTPUT = "gradient"


class LogProbabilityGradient(torch.nn.Module):  # type: ignore[misc]
    """d log softmax(classifier(x, t))[y] / dx for every sample of a batch."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        """Return the gradient, in the shape of the sample."""
        with torch.enable_grad():
            x = sample.detach().requires_grad_()
            log_p = torch.log_softmax(self.classifier(x, timestep), dim=-1)
            # Not gathered: the gradient of that is a scatter that adds, which TensorRT itself does not do.
            asked = class_labels[:, None] == torch.arange(log_p.shape[-1])
            # Samples of a batch do not influence one another, so the sum's gradient is each one's own.
            total = torch.where(asked, log_p, 0.0).sum()
            (gradient,) = torch.autograd.grad(total, x) if total.requires_grad else (torch.zeros_like(x),)
        return gradient


def examples(source: ClassifierSource, batch: int, *, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Return noise, times up to 999 and labels, as the classifier of `source` takes them."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn((batch, *source.sample_shape), generator=generator)
    timestep = torch.rand(batch, generator=generator) * 999
    return sample, timestep, (torch.arange(batch) + seed) % source.classes


def unlikely(source: ClassifierSource, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """Return the class that the classifier finds least likely, for each sample.

    The gradient for the class that a sample is taken for may vanish, and its relative error means nothing then.
    """
    with torch.no_grad():
        found: torch.Tensor = source.model(sample, timestep).argmin(dim=-1)
    return found


def trace_gradient(source: ClassifierSource) -> ir.Model:
    """Trace the gradient of a classifier to an ONNX graph with a free batch axis."""
    module = LogProbabilityGradient(source.model).eval()
    _check(source, module)
    return trace_backward(
        Backward(
            module,
            dict(zip(INPUTS, examples(source, TRACED_BATCH))),
            frozenset(INPUTS),
            (OUTPUT,),
            network=source.model,
            call=lambda: source.model(torch.zeros(1, *source.sample_shape), torch.zeros(1)),
            what="classifier",
        )
    )


def _check(source: ClassifierSource, module: LogProbabilityGradient) -> None:
    """Refuse a classifier that is none: of another signature or output, or with no gradient in x."""
    inputs = examples(source, TRACED_BATCH)
    called = f"classifier(x, t) with x {tuple(inputs[0].shape)} and t {tuple(inputs[1].shape)}"
    try:
        with torch.no_grad():
            logits = source.model(*inputs[:2])
    except Exception as error:
        raise ExportError(
            "the classifier cannot be called",
            got=f"{type(error).__name__}: {error}",
            expected=f"{called} to give logits",
            fix="mend the sample shape, or have the factory wrap the network in a module that is called so",
        ) from error
    expected = (TRACED_BATCH, source.classes)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ExportError(
            "the classifier does not give a logit for each class",
            got=got,
            expected=f"shape {expected}, from {called}",
            fix="mend the number of classes, or have the factory return a module that gives logits",
        )
    try:
        gradient = module(*inputs)
    except RuntimeError as error:
        raise ExportError(
            "the classifier has no gradient in x",
            got=error,
            expected="logits that depend on x through differentiable operators",
        ) from error
    if not gradient.isfinite().all():
        raise ExportError("the classifier's gradient is not finite", got="NaN or infinity", expected="numbers")
    if not gradient.any():
        raise ExportError(
            "the classifier has no gradient in x",
            got="zero everywhere",
            expected="logits that depend on x through differentiable operators",
            fix="remove detach(), no_grad() and rounding between x and the logits",
        )
    alone = module(*(tensor[:1] for tensor in inputs))
    change = float((alone - gradient[:1]).abs().max())
    if change > 1e-3 * float(gradient.abs().max()):
        raise ExportError(
            "the classifier's gradient for a sample depends on the rest of its batch, or on chance",
            got=f"a difference of {change:.1e} between batches 1 and {TRACED_BATCH}",
            expected="the same gradient",
            fix="remove statistics over the batch and dropout that stay on in eval mode",
        )
