"""The exported gradient of log p(y | x_t) is torch's, at any batch, and leads to the class that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from small_classifiers import BODIES, Encoder, source_of, timed

from dpmrt.export.classifier import ClassifierSource, export_classifier, load_classifier_source

CHECKPOINT = Path(__file__).parents[2] / "engines/checkpoints/digits-classifier"


def run(path: Path, *inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = ("sample", "timestep", "class_labels")
    return torch.from_numpy(session.run(["gradient"], {n: t.numpy() for n, t in zip(names, inputs)})[0])


def autograd(source: ClassifierSource, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Each sample on its own, so that nothing of the batch can enter."""
    rows = []
    for i in range(len(x)):
        own = x[i : i + 1].clone().requires_grad_()
        log_p = torch.log_softmax(source.model(own, t[i : i + 1]), dim=1)[0, y[i]]
        rows.append(torch.autograd.grad(log_p, own)[0])
    return torch.cat(rows)


def inputs_for(source: ClassifierSource, batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((batch, *source.sample_shape), generator=generator)
    t = torch.rand(batch, generator=generator) * 1000
    return x, t, torch.randint(source.classes, (batch,), generator=generator)


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def digits() -> ClassifierSource:
    return load_classifier_source(CHECKPOINT)


@pytest.fixture(scope="module")
def exported(digits: ClassifierSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    return folder / export_classifier(digits, folder).path


@pytest.fixture(scope="module")
def small() -> ClassifierSource:
    return timed("convolution, stride 2")


@pytest.mark.parametrize("batch", [1, 2, 70])
def test_digits_at_any_batch(digits: ClassifierSource, exported: Path, batch: int) -> None:
    inputs = inputs_for(digits, batch, seed=batch)
    assert relative(run(exported, *inputs), autograd(digits, *inputs)) < 1e-5


@pytest.mark.parametrize("name", BODIES)
def test_operators_of_usual_classifiers(name: str, tmp_path: Path) -> None:
    source = timed(name)
    path = tmp_path / export_classifier(source, tmp_path).path
    for batch in (1, 7):
        inputs = inputs_for(source, batch, seed=batch)
        assert relative(run(path, *inputs), autograd(source, *inputs)) < 1e-5


def test_the_encoder_of_a_unet(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        source = source_of(Encoder(), (3, 16, 16))
    path = tmp_path / export_classifier(source, tmp_path).path
    inputs = inputs_for(source, 4)
    assert relative(run(path, *inputs), autograd(source, *inputs)) < 1e-5
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not {operator for operator in operators if operator.startswith(("Scatter", "Random", "If", "Loop"))}


def test_finite_differences_in_float64(digits: ClassifierSource, exported: Path) -> None:
    x, t, y = inputs_for(digits, 1)
    double = load_classifier_source(CHECKPOINT).model.double()

    def log_p(sample: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.log_softmax(double(sample, t.expand(len(sample))), dim=1)[:, y[0]]

    h = 1e-5
    steps = h * torch.eye(x.numel(), dtype=torch.float64).view(-1, *x.shape[1:])
    expected = (log_p(x.double() + steps) - log_p(x.double() - steps)) / (2 * h)
    assert relative(run(exported, x, t, y).double().flatten(), expected) < 1e-5


def test_ascent_raises_the_probability_of_the_class(digits: ClassifierSource, exported: Path) -> None:
    x, _, _ = inputs_for(digits, 10)
    y, t = torch.arange(10), torch.full((10,), 400.0)

    def probability() -> torch.Tensor:
        with torch.no_grad():
            return torch.softmax(digits.model(x, t), dim=1)[torch.arange(10), y]

    before = probability()
    for _ in range(30):
        gradient = run(exported, x, t, y)
        x = x + 0.3 * gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-3)[:, None, None, None]
    assert before.mean() < 0.3
    assert probability().min() > 0.95


def test_the_description_is_that_of_the_graph(small: ClassifierSource, tmp_path: Path) -> None:
    network = export_classifier(small, tmp_path)
    graph = onnx.load(tmp_path / network.path).graph
    assert network.path == "classifier/model.onnx"
    assert network.sample_shape == small.sample_shape
    for described, values in ((network.inputs, graph.input), (network.outputs, graph.output)):
        shapes: list[Any] = [
            tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim) for value in values
        ]
        assert [(spec.name, spec.shape) for spec in described] == [(v.name, s) for v, s in zip(values, shapes)]
    assert [spec.role for spec in (*network.inputs, *network.outputs)] == [
        "sample",
        "timestep",
        "class_labels",
        "gradient",
    ]
    assert sorted(path.name for path in (tmp_path / "classifier").iterdir()) == ["config.json", "model.onnx"]


def test_the_same_classifier_gives_the_same_bytes_and_no_trace_of_the_machine(
    tmp_path: Path,
) -> None:
    made = []
    for name in ("one", "other"):
        source = timed("convolution, stride 2")
        (tmp_path / name).mkdir()
        state = torch.get_rng_state()
        made.append(tmp_path / name / export_classifier(source, tmp_path / name).path)
        assert torch.equal(torch.get_rng_state(), state)
    one, other = made
    assert other.read_bytes() == one.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in other.read_bytes()
    assert (other.parent / "config.json").read_bytes() == (one.parent / "config.json").read_bytes()


def test_weights_beside_the_graph(small: ClassifierSource, tmp_path: Path) -> None:
    network = export_classifier(small, tmp_path, external_above=100)
    inputs = inputs_for(small, 2)
    assert network.data == ("classifier/model.onnx_data",)
    assert relative(run(tmp_path / network.path, *inputs), autograd(small, *inputs)) < 1e-5


def test_the_gradient_is_finite_where_the_classifier_is_certain(digits: ClassifierSource, exported: Path) -> None:
    x, _, y = inputs_for(digits, 4)
    gradient = run(exported, 1e3 * x, torch.zeros(4), y).numpy()
    assert np.isfinite(gradient).all()


def test_a_label_that_is_no_class_gives_zero(digits: ClassifierSource, exported: Path) -> None:
    x, t, _ = inputs_for(digits, 2)
    assert not run(exported, x, t, torch.tensor([-1, 10])).any()
