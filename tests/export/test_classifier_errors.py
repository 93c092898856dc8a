"""What is no classifier, or has no gradient that can be exported, is refused with its reason."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_classifiers import IMAGE, Call, Timed, source_of
from torch import nn
from torch.nn import functional as F

from dpmrt.engines import Guidance, Network, TensorSpec
from dpmrt.errors import ExportError, OptionError
from dpmrt.export.bundle import export_bundle
from dpmrt.export.classifier import (
    ClassifierSource,
    check_fits,
    check_trained_times,
    export_classifier,
    load_classifier_source,
    trace_gradient,
)

CHECKPOINTS = Path(__file__).parents[2] / "engines/checkpoints"

FACTORIES = """
import torch
def linear():
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(4, 3)
        def forward(self, x, t):
            return self.head(x) * (1 + t[:, None] / 1000)
    return Linear()
def number():
    return 3
def broken():
    raise KeyError("width")
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_classifiers.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_classifiers", raising=False)
    return "my_classifiers"


def body(function: Callable[[torch.Tensor], torch.Tensor]) -> ClassifierSource:
    return source_of(Timed(nn.Sequential(nn.Conv2d(4, 4, 1), Call(function)), IMAGE))


class Logits(nn.Module):
    """A classifier that is one function of x and t."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> object:
        return self.function(x, t)


def sampled(x: torch.Tensor) -> torch.Tensor:
    grid = F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def branching(x: torch.Tensor) -> torch.Tensor:
    return x if x.sum() > 0 else 2 * x


def test_an_operator_without_a_gradient_in_onnx_is_named_with_its_module_and_line() -> None:
    with pytest.raises(ExportError, match="an operator's gradient cannot be exported") as caught:
        trace_gradient(body(sampled))
    line = sampled.__code__.co_firstlineno + 2
    assert caught.value.got == (
        f"aten.grid_sampler_2d_backward.default, called in body.1 (test_classifier_errors.py:{line})"
    )
    assert "opset 20" in str(caught.value)


def test_a_divisor_that_the_exporter_would_drop_is_refused() -> None:
    with pytest.raises(ExportError, match="gradient cannot be exported") as caught:
        trace_gradient(body(lambda x: F.avg_pool2d(x, 3, divisor_override=5)))
    assert "aten.avg_pool2d_backward.default, called in body.1 (" in str(caught.value)


def test_a_branch_on_values_is_refused() -> None:
    with pytest.raises(ExportError, match="torch cannot trace the classifier's gradient") as caught:
        trace_gradient(body(branching))
    assert "no branch on values" in str(caught.value)
    assert str(caught.value.got).endswith(f" (test_classifier_errors.py:{branching.__code__.co_firstlineno + 1})")


@pytest.mark.parametrize(
    ("function", "what", "got"),
    [
        (lambda x, t: x.flatten(1)[:, :4], "does not give a logit for each class", r"shape \(3, 4\)"),
        (lambda x, t: (x.flatten(1)[:, :5],), "does not give a logit for each class", "got:      tuple"),
        (lambda x, t: x @ t, "the classifier cannot be called", "RuntimeError: .*size mismatch"),
        (lambda x, t: x.detach().flatten(1)[:, :5], "has no gradient in x", "zero everywhere"),
        (lambda x, t: x.round().flatten(1)[:, :5], "has no gradient in x", "zero everywhere"),
        (lambda x, t: x.long().flatten(1)[:, :5], "has no gradient in x", ""),
        (lambda x, t: torch.sqrt(-x.abs()).flatten(1)[:, :5], "gradient is not finite", "NaN or infinity"),
        (
            lambda x, t: (x - x.mean(0)).flatten(1)[:, :5],
            "depends on the rest of its batch",
            "between batches 1 and 3",
        ),
        (lambda x, t: F.dropout(x).flatten(1)[:, :5], "depends on the rest of its batch, or on chance", ""),
    ],
)
def test_what_is_no_classifier(function: Callable[..., object], what: str, got: str) -> None:
    with pytest.raises(ExportError, match=what) as caught:
        trace_gradient(source_of(Logits(function)))
    assert caught.match(got)


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = body(torch.tanh)
    other = copy.deepcopy(source)
    other.model.head.weight.mul_(1.01)
    monkeypatch.setattr("dpmrt.export.classifier.write.trace_gradient", lambda _: trace_gradient(other))
    with pytest.raises(ExportError, match="the exported gradient is not that of torch") as caught:
        export_classifier(source, tmp_path)
    assert "a relative error of" in str(caught.value)
    assert "at most 1e-05" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_classifier_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "classifier").mkdir()
    with pytest.raises(ExportError, match="a classifier is there already"):
        export_classifier(body(torch.tanh), tmp_path)


def test_a_checkpoint_says_for_how_many_times_it_was_trained(tmp_path: Path) -> None:
    folder = tmp_path / "classifier"
    shutil.copytree(CHECKPOINTS / "digits-classifier", folder)
    assert load_classifier_source(folder).config["train_timesteps"] == 1000
    for text in ("{", "[]", '{"noise": {"num_train_timesteps": "many"}}'):
        (folder / "training.json").write_text(text)
        assert "train_timesteps" not in load_classifier_source(folder).config


def test_a_factory_with_and_without_weights(factories: str, tmp_path: Path) -> None:
    options = {"sample_shape": (4,), "classes": 3}
    state = torch.get_rng_state()
    plain = load_classifier_source(f"{factories}:linear", **options)
    assert torch.equal(torch.get_rng_state(), state)
    weights = {"head.weight": torch.ones(3, 4), "head.bias": torch.zeros(3)}
    save_file(weights, tmp_path / "weights.safetensors")
    loaded = load_classifier_source(f"{factories}:linear", **options, weights=tmp_path / "weights.safetensors")
    assert torch.equal(loaded.model.head.weight, weights["head.weight"])
    assert loaded.weights_sha256 != plain.weights_sha256
    assert loaded.config == {
        "kind": "my_classifiers:linear",
        "sample_shape": [4],
        "classes": 3,
        "weights_sha256": loaded.weights_sha256,
    }
    assert export_classifier(plain, tmp_path).sample_shape == (4,)


@pytest.mark.parametrize(
    ("name", "what", "got"),
    [
        ("number", "the classifier's factory returns no module", "int from my_classifiers:number"),
        ("broken", "the classifier's factory failed", "KeyError: 'width'"),
        ("absent", "the classifier's factory failed", "AttributeError"),
    ],
)
def test_a_factory_that_makes_no_module(factories: str, name: str, what: str, got: str) -> None:
    with pytest.raises(ExportError, match=what) as caught:
        load_classifier_source(f"{factories}:{name}", sample_shape=(4,), classes=3)
    assert caught.match(got)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"classes": 3}, "a factory needs the shape of one sample"),
        ({"classes": 3, "sample_shape": (0, 4)}, "a factory needs the shape of one sample"),
        ({"sample_shape": (4,)}, "a factory needs the number of classes"),
        ({"sample_shape": (4,), "classes": 1}, "a factory needs the number of classes"),
    ],
)
def test_a_factory_needs_shape_and_classes(factories: str, options: dict[str, object], what: str) -> None:
    with pytest.raises(OptionError, match=what):
        load_classifier_source(f"{factories}:linear", **options)


def test_weights_that_are_pickled_or_of_another_network(factories: str, tmp_path: Path) -> None:
    torch.save({"head.bias": torch.zeros(3)}, tmp_path / "weights.pt")
    save_file({"body": torch.zeros(3)}, tmp_path / "other.safetensors")
    for name in ("weights.pt", "other.safetensors", "none.safetensors"):
        with pytest.raises(ExportError, match="the weights do not fit the classifier") as caught:
            load_classifier_source(f"{factories}:linear", sample_shape=(4,), classes=3, weights=tmp_path / name)
        assert caught.match(name)
        assert caught.match("nothing is unpickled")


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CHECKPOINTS / "digits-classifier", tmp_path / "classifier"))
    model = load_classifier_source(folder).model
    model.head.bias[3] = torch.nan
    save_file(model.state_dict(), folder / "model.safetensors")
    with pytest.raises(ExportError, match="the classifier's tensors hold NaN or infinity") as caught:
        load_classifier_source(folder)
    assert caught.value.got == "head.bias"


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no classifier here") as caught:
        load_classifier_source(tmp_path / "none")
    assert caught.match("package.module:factory")
    with pytest.raises(ExportError, match=r"cannot read .*config\.json"):
        load_classifier_source(tmp_path)
    with pytest.raises(ExportError, match="is of another kind") as caught:
        load_classifier_source(CHECKPOINTS / "digits-reader")
    assert (caught.value.got, caught.value.expected) == ("digit-reader", "noisy-digit-classifier")
    with pytest.raises(OptionError, match="a classifier's folder says itself what it takes"):
        load_classifier_source(CHECKPOINTS / "digits-classifier", classes=10)


def network(*shape: int | str) -> Network:
    return Network("model.onnx", (TensorSpec("sample", "sample", "float32", ("batch", *shape)),), ())


def judge(*shape: int, classes: int = 10) -> ClassifierSource:
    return ClassifierSource(None, shape, classes, "0" * 64, "tests:judge")


def test_a_classifier_that_does_not_fit_the_unet() -> None:
    ten = Guidance("classifier_free", 10, 10)
    check_fits(network(1, 16, 16), judge(1, 16, 16), ten)
    check_fits(network(1, "height", "width"), judge(1, 16, 16, classes=7), None)
    for shape in ((1, 32, 16), (16, 16)):
        with pytest.raises(ExportError, match="reads other samples than the UNet makes") as caught:
            check_fits(network(1, 16, 16), judge(*shape), None)
        assert caught.value.expected == "samples of shape (1, 16, 16)"
    with pytest.raises(ExportError, match="knows other classes than the UNet") as caught:
        check_fits(network(1, 16, 16), judge(1, 16, 16, classes=7), ten)
    assert (caught.value.got, caught.value.expected) == ("7 classes", "10 classes, as the guidance has")


def test_a_classifier_that_was_trained_for_other_times(tmp_path: Path) -> None:
    classifier = load_classifier_source(CHECKPOINTS / "digits-classifier")
    check_trained_times(classifier, {"num_train_timesteps": 1000})
    check_trained_times(dataclasses.replace(classifier, train_timesteps=None), {"num_train_timesteps": 500})
    check_trained_times(classifier, {})
    late = Path(shutil.copytree(CHECKPOINTS / "digits-classifier", tmp_path / "late"))
    record = (late / "training.json").read_text()
    (late / "training.json").write_text(record.replace('"num_train_timesteps": 1000', '"num_train_timesteps": 500'))
    with pytest.raises(ExportError, match="was trained for other times than the UNet") as caught:
        export_bundle(CHECKPOINTS / "digits-unet", tmp_path / "bundle", classifier=late)
    assert (caught.value.got, caught.value.expected) == ("500 training times", "1000, as the scheduler's config says")
    assert not (tmp_path / "bundle").exists()
