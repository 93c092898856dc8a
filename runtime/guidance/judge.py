"""Classifier guidance that a caller asks for, held against the bundle's classifier, the plan and the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from dpmrt.engines import MANIFEST_NAME, Network
from dpmrt.errors import BundleError, OptionError
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.guidance.check import check_scale
from dpmrt.runtime.guidance.classifier import GuideMean, GuideNoise, check_mean, mean_suits
from dpmrt.runtime.labels import check_labels
from dpmrt.runtime.network_checks import check_rows, check_times
from dpmrt.runtime.request import Labels
from dpmrt.runtime.sizes import show
from dpmrt.solvers_np import Hook, StepPlan

MODES = ("auto", "mean", "noise")


def need_classifier(bundle: OpenBundle) -> Network:
    """Return the bundle's classifier as the manifest describes it, or say that there is none."""
    network = bundle.manifest.classifier
    if network is None:
        raise BundleError(
            "the bundle has no classifier",
            got=bundle.root,
            expected=f"`classifier` in {MANIFEST_NAME}",
            fix="export the network again together with its classifier",
        )
    return network


def classifier_hooks(
    bundle: OpenBundle,
    plan: StepPlan,
    shape: Sequence[int],
    gradient: Callable[[NDArray[Any], Any, Labels], NDArray[Any]],
    *,
    scale: object,
    label: Labels,
    mode: str | None,
    usual: Labels = None,
) -> tuple[Hook, ...]:
    """Return what guides a run by the bundle's classifier: nothing where no scale, or none but zero, is asked for.

    `shape` is the state's, its batch first; `gradient` is the pipeline's; `usual` is the label where none is given.
    """
    if scale is None:
        if mode is not None or label is not None:
            named = "classifier_label" if mode is None else "classifier_mode"
            raise OptionError(
                "how a classifier is to guide is said, and not how strongly",
                got=f"{named}, and no classifier_scale",
                expected="a scale",
                fix="classifier_scale=2.0",
            )
        return ()
    network, batch = need_classifier(bundle), shape[0]
    scales = check_scale("classifier_scale", scale, batch)
    mode = "auto" if mode is None else mode
    if mode not in MODES:
        raise OptionError("a classifier guides in no such mode", got=repr(mode), expected=", ".join(MODES))
    _check_fits(bundle, network, tuple(shape[1:]), plan)
    check_rows(network, batch, False)
    label = usual if label is None else label
    if label is None:
        raise OptionError(
            "a classifier has no class to guide to",
            got="classifier_label=None, and label=None",
            expected="a class, or one for each sample",
            fix="classifier_label=0",
        )
    labels = check_labels(batch, label, classes=bundle.classifier_classes)
    if mode == "auto":
        mode = "mean" if mean_suits(plan) else "noise"
    if mode == "mean":
        check_mean(plan)
    if not scales.any():
        return ()

    def towards(x: NDArray[Any], t: float) -> NDArray[Any]:
        return gradient(x, t, labels)

    if mode == "mean":
        return (GuideMean(towards, scales),)
    return (GuideNoise(towards, scales, bundle.manifest.prediction),)


def _check_fits(bundle: OpenBundle, network: Network, shape: tuple[int, ...], plan: StepPlan) -> None:
    """Refuse a classifier of other samples, classes or times than the network's, as far as the bundle tells."""
    taken = network.sample_shape
    if len(taken) != len(shape) or any(own != size for own, size in zip(taken, shape) if isinstance(own, int)):
        raise BundleError(
            "the classifier reads other samples than the network makes",
            got=f"samples of {show(taken)}",
            expected=f"samples of {show(shape)}",
            fix="export the network together with a classifier of its samples",
        )
    own, classes = bundle.classifier_classes, bundle.classes
    if own is not None and classes is not None and own != classes:
        raise BundleError(
            "the classifier knows other classes than the network",
            got=f"{own} classes",
            expected=f"{classes} classes",
            fix="export the network together with a classifier that was trained on the same labels",
        )
    steps, times = bundle.classifier_config.get("train_timesteps"), plan.timesteps
    if isinstance(steps, int) and (times.min() < 0 or times.max() > steps):
        raise BundleError(
            "the classifier was trained for other times than the plan's",
            got=f"the plan's times from {times.min():g} to {times.max():g}",
            expected=f"0 to {steps}, the training times of the classifier",
            fix="export the network together with a classifier that was trained on its noise schedule",
        )
    trained = None if bundle.schedule is None else bundle.schedule.train_steps
    if isinstance(steps, int) and trained is not None and trained != steps:
        raise BundleError(
            "the classifier was trained for other times than the network",
            got=f"{steps} training times",
            expected=f"{trained}, as the network",
            fix="export the network together with a classifier that was trained on its noise schedule",
        )
    check_times(network, plan)
