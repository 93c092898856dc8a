"""Backward passes of a bundle, a classifier's gradient and a vector-Jacobian product, beside those of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dpmrt.engines import GraphParity, Limits, Manifest, Network, hash_file
from dpmrt.errors import NonFiniteError
from dpmrt.export.certificate.cases import Case, make_cases
from dpmrt.export.certificate.conditions import SEEDS
from dpmrt.export.certificate.limits import failures_of
from dpmrt.export.certificate.measures import compare_call
from dpmrt.export.classifier import ClassifierSource, LogProbabilityGradient
from dpmrt.export.classifier.gradient import unlikely
from dpmrt.export.classifier.write import TOLERANCE as GRADIENT_TOLERANCE
from dpmrt.export.sources import Source
from dpmrt.export.vjp import COTANGENT, OUTPUT, PRODUCT, VectorJacobian
from dpmrt.export.vjp import TOLERANCE as PRODUCT_TOLERANCE
from dpmrt.runtime.backends import host_engine
from dpmrt.runtime.classifier import Classifier
from dpmrt.runtime.vjp import open_product

Array = NDArray[Any]
Kind = Literal["classifier", "vjp"]
Tell = Callable[[str, int, int], None]
Shape = tuple[int, ...]
Run = Callable[[Case, Mapping[str, Shape]], Mapping[str, Array]]

_ROWS = 3
GRADIENT = "gradient"


@dataclass(frozen=True)
class ExpectedBackward:
    """What torch.autograd gave for calls of one of the bundle's graphs: an array a case, for each output."""

    kind: Kind
    network: Network
    cases: Sequence[Case]
    outputs: Mapping[str, Sequence[Array]]
    tolerance: float
    weights_sha256: str
    classes: int | None = None


def backward_names(manifest: Manifest, judge: ClassifierSource | None) -> list[Kind]:
    """Return which backward passes of a bundle are compared."""
    have: list[tuple[Kind, object]] = [("classifier", judge), ("vjp", manifest.vjp)]
    return [kind for kind, there in have if there is not None]


def backward_in_torch(
    manifest: Manifest,
    judge: ClassifierSource | None,
    source: Source,
    *,
    seed: int,
    times: tuple[float, ...],
    tell: Tell,
) -> list[ExpectedBackward]:
    """Return what torch.autograd gives for the graphs that the bundle has beside its network's."""
    ran = []
    if manifest.classifier is not None and judge is not None:
        ran.append(_gradients(judge, manifest.classifier, seed, times, tell))
    if manifest.vjp is not None:
        ran.append(_products(source, manifest, manifest.vjp, seed, times, tell))
    return ran


def _gradients(
    source: ClassifierSource, network: Network, seed: int, times: tuple[float, ...], tell: Tell
) -> ExpectedBackward:
    """Return the gradients of log p(y | x_t): at all `times` for one sample, then for several rows."""
    module = LogProbabilityGradient(source.model)
    plan = [(t,) for t in times] + [(times[start:] + times[:start])[:_ROWS] for start in (1, 3)]
    cases, gradients = [], []
    for number, own in enumerate(plan):
        batch, drawn = len(own), (seed + number) % SEEDS
        generator = torch.Generator().manual_seed(drawn)
        x = torch.randn((batch, *source.sample_shape), generator=generator)
        t = torch.tensor(own, dtype=torch.float32)
        label = unlikely(source, x, t)
        tensors = {"sample": x, "timestep": t, "class_labels": label}
        cases.append(Case({"batch": batch}, own, drawn, tensors))
        gradients.append(module(x, t, label).numpy())
        tell("classifier", number + 1, len(plan))
    return ExpectedBackward(
        "classifier",
        network,
        cases,
        {GRADIENT: gradients},
        GRADIENT_TOLERANCE,
        source.weights_sha256,
        source.classes,
    )


def _products(
    source: Source, manifest: Manifest, network: Network, seed: int, times: tuple[float, ...], tell: Tell
) -> ExpectedBackward:
    """Return the vector-Jacobian products, and the outputs beside them."""
    module = VectorJacobian(source.model, source.interface)
    roles = [entry.role for entry in source.interface.inputs]
    cases, products, outputs = [], [], []
    drawn = make_cases(manifest, source.interface, seed=seed, times=times, guidance=None)
    for number, case in enumerate(drawn, start=1):
        shape = (len(case.tensors["sample"]), *source.interface.state_shape())
        v = torch.randn(shape, generator=torch.Generator().manual_seed((case.seed + len(drawn)) % SEEDS))
        product, output = module(*(case.tensors[role] for role in roles), v)
        cases.append(Case(case.sizes, case.times, case.seed, {**case.tensors, COTANGENT: v}))
        products.append(product.numpy())
        outputs.append(output.numpy())
        tell("vjp", number, len(drawn))
    outs = {PRODUCT: products, OUTPUT: outputs}
    return ExpectedBackward("vjp", network, cases, outs, PRODUCT_TOLERANCE, source.weights_sha256)


def compare_backward(root: Path, expected: Sequence[ExpectedBackward], tell: Tell) -> tuple[GraphParity, ...]:
    """Run the same calls through the bundle's graphs, as sampling does, and hold each output against torch's."""
    return tuple(part for one in expected for part in _compare(root, one, tell))


def _compare(root: Path, expected: ExpectedBackward, tell: Tell) -> list[GraphParity]:
    run, close = _opened(root, expected)
    try:
        got = []
        for number, case in enumerate(expected.cases):
            got.append(run(case, {role: arrays[number].shape for role, arrays in expected.outputs.items()}))
            tell(expected.kind, number + 1, len(expected.cases))
    finally:
        close()
    limits = Limits(call=None, drift=None, call_rms=expected.tolerance)
    network, digest = expected.network, hash_file(root / expected.network.path)
    parts = []
    for role, outputs in expected.outputs.items():
        calls = tuple(compare_call(*row) for row in zip(expected.cases, outputs, (answer[role] for answer in got)))
        failures = tuple(failures_of(expected.cases, calls, limits))
        parts.append(
            GraphParity(
                network=expected.kind,
                output=role,
                passed=not failures,
                backend=host_engine(network),
                graph=network.path,
                onnx_sha256=digest,
                weights_sha256=expected.weights_sha256,
                limits=limits,
                calls=calls,
                failures=failures,
            )
        )
    return parts


def _opened(root: Path, expected: ExpectedBackward) -> tuple[Run, Callable[[], None]]:
    if expected.kind == "classifier":
        classifier = Classifier(root, expected.network, classes=expected.classes)

        def gradient(case: Case, shapes: Mapping[str, Shape]) -> dict[str, Array]:
            x, t, label = (case.tensors[role].numpy() for role in ("sample", "timestep", "class_labels"))
            try:
                return {GRADIENT: classifier.gradient(x, t, label)}
            except NonFiniteError:
                return {GRADIENT: np.full(shapes[GRADIENT], np.nan, np.float32)}

        return gradient, classifier.close
    backend = open_product(root, expected.network)
    specs = {spec.role: spec for spec in expected.network.outputs}

    def product(case: Case, shapes: Mapping[str, Shape]) -> dict[str, Array]:
        out = {role: np.zeros(shape, specs[role].dtype) for role, shape in shapes.items()}
        given = {
            spec.name: np.array(case.tensors[spec.role].numpy(), spec.dtype, order="C")
            for spec in expected.network.inputs
        }
        backend.bind(given, {specs[role].name: array for role, array in out.items()})()
        return out

    return product, backend.close
