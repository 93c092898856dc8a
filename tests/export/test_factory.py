"""Networks made by a function and described by a spec: from the spec to samples, and what is refused on the way."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_factories import SPEC, make
from tiny_networks import save_scheduler

from dpmrt.errors import ExportError, OptionError
from dpmrt.export import export_bundle
from dpmrt.export.factory import load_factory
from dpmrt.runtime import load
from dpmrt.solvers_np import randn, run_plan

NAME = "tiny_factories:make"
TOML = """
[arguments]
halved = true

[inputs.sample]
shape = ["batch", 3, "length"]
argument = "x"

[inputs.timestep]
shape = ["batch"]
argument = "when"

[inputs.pooled]
shape = ["batch", 5]
argument = "extras.text.pooled"
guided = true

[output]
shape = ["batch", 3, "length"]
pick = ["result", 0]

[axes.length]
size = 16
multiple = 2
"""
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(TOML)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    tensors = {name: tensor + 0.25 for name, tensor in make().state_dict().items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def changed(change: Change) -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    change(spec)
    return spec


def test_a_file_a_mapping_and_a_name_say_the_same(toml: Path) -> None:
    declared = [load_factory(NAME, spec).declared for spec in (toml, str(toml), SPEC, "tiny_factories:SPEC")]
    assert all(interface == declared[0] for interface in declared)
    sample, timestep, pooled = declared[0].inputs
    assert (sample.shape, sample.path) == (("batch", 3, "length"), ("x",))
    assert timestep.path == ("when",)
    assert (pooled.path, pooled.negated) == (("extras", "text", "pooled"), True)
    assert str(declared[0].axes["length"].axis) == "2 or more, in multiples of 2"


@pytest.mark.parametrize("fold", [False, True])
def test_from_the_factory_to_samples(toml: Path, weights: Path, tmp_path: Path, fold: bool) -> None:
    scheduler = save_scheduler(tmp_path)
    bundle = export_bundle(
        NAME, tmp_path / "bundle", spec=toml, weights=weights, scheduler=scheduler, sizes={"batch": "free"}, fold=fold
    )
    network = make()
    network.load_state_dict({name: tensor + 0.25 for name, tensor in network.state_dict().items()})
    pooled = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    away = np.zeros((1, 5), np.float32)

    def once(x: np.ndarray, t: np.ndarray, text: np.ndarray) -> np.ndarray:
        times = torch.full((len(x),), float(np.ravel(t)[0]))
        with torch.inference_mode():
            given = {"text": {"pooled": torch.from_numpy(np.broadcast_to(text, (2, 5)).copy())}}
            result: np.ndarray = network(torch.from_numpy(x), times, extras=given, halved=True).result[0].numpy()
        return result

    def guided(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        null = once(x, t, away)
        return null + np.float32(3) * (once(x, t, pooled) - null)

    with load(bundle) as pipeline:
        expected = run_plan(pipeline.plan(steps=6), guided, randn((2, 3, 10), 0))
        got = pipeline.sample(
            2, shape=(3, 10), steps=6, conditions={"pooled": pooled}, negative={"pooled": away}, guidance=3.0
        )
    assert got.shape == (2, 3, 10)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_weights_are_those_of_the_file_or_the_factorys_own(weights: Path) -> None:
    own, given = load_factory(NAME, SPEC), load_factory(NAME, SPEC, str(weights))
    torch.testing.assert_close(given.model.enter.bias, own.model.enter.bias + 0.25)
    assert own.weights_sha256 != given.weights_sha256
    assert load_factory(NAME, SPEC).weights_sha256 == own.weights_sha256


def test_a_factory_of_a_half_precision_network() -> None:
    source = load_factory("tiny_factories:make_half", SPEC)
    assert {tensor.dtype for tensor in source.weights.values()} == {torch.float16}
    assert {tensor.dtype for tensor in source.skeleton.parameters()} == {torch.float32}
    assert source.predict(source.interface.examples(batch=2)).dtype == torch.float32


def test_a_module_beside_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_beside.py").write_text(
        "def make():\n    from torch_beside import module\n    return module()\n", encoding="utf-8"
    )
    (tmp_path / "torch_beside.py").write_text("from tiny_factories import make as module\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_factory("mine_beside:make", SPEC).kind == "mine_beside:make"
    assert sys.path == before


CONTRADICTIONS: dict[str, tuple[Change, str]] = {
    "no sample": (lambda s: s["inputs"].pop("sample"), r"contradicts itself(.|\n)*no \[inputs\.sample\]"),
    "no timestep": (lambda s: s["inputs"].pop("timestep"), r"contradicts itself(.|\n)*no \[inputs\.timestep\]"),
    "unknown axis": (
        lambda s: s["axes"].clear(),
        r"contradicts itself(.|\n)*no \[axes\.length\], which a shape names(.|\n)*every axis but batch",
    ),
    "unused axis": (
        lambda s: s["axes"].update(height={"size": 8}),
        r"contradicts itself(.|\n)*\[axes\.height\], which no shape names",
    ),
    "size not allowed": (
        lambda s: s["axes"]["length"].update(size=15),
        r"contradicts itself(.|\n)*axes\.length: size 15(.|\n)*in multiples of 2",
    ),
    "size of nothing": (lambda s: s["inputs"]["pooled"].update(shape=["batch", 0]), "an axis of 0(.|\n)*sizes of 1"),
    "axis of nothing": (lambda s: s["axes"]["length"].update(size=0), r"axes\.length(.|\n)*sizes of 1 or more"),
    "no batch": (
        lambda s: s["inputs"]["sample"].update(shape=[1, 3, "length"]),
        r"sample \[1, 3, 'length'\](.|\n)*begin with \"batch\"",
    ),
    "rank": (
        lambda s: s["output"].update(shape=["batch", 3]),
        r"output \['batch', 3\](.|\n)*an output of the sample's rank",
    ),
    "other sizes": (
        lambda s: s["output"].update(shape=["batch", 3, 16]),
        r"output \['batch', 3, 16\](.|\n)*differs in its channels at most",
    ),
    "times": (
        lambda s: s["inputs"]["timestep"].update(shape=["batch", 1]),
        r"timestep \['batch', 1\](.|\n)*\[\] or \[\"batch\"\]",
    ),
    "labels": (
        lambda s: s["inputs"].update(class_labels={"shape": ["batch"]}),
        "class_labels and no `labels`(.|\n)*labels = how many",
    ),
    "one argument twice": (
        lambda s: s["inputs"]["timestep"].update(argument="x"),
        "the argument x, which two are passed as(.|\n)*of its own for each",
    ),
    "an argument within another": (
        lambda s: s["inputs"]["timestep"].update(argument="extras.text"),
        r"the argument extras\.text, which two are passed as",
    ),
    "an argument that is given": (lambda s: s["arguments"].update(x=1), "the argument x, which two are passed as"),
    "no shape": (
        lambda s: s["inputs"]["sample"].pop("shape"),
        r"not follow its form(.|\n)*`shape`(.|\n)*\$\.inputs",
    ),
    "wrong type": (
        lambda s: s["inputs"]["sample"].update(dtype="float64"),
        r"does not follow its form(.|\n)*float64(.|\n)*dtype",
    ),
    "unknown key": (lambda s: s.update(outptu={}), "does not follow its form(.|\n)*outptu(.|\n)*docs/export.md"),
    "no inputs": (lambda s: s.pop("inputs"), "does not follow its form(.|\n)*`inputs`"),
    "size as text": (lambda s: s["axes"]["length"].update(size="16"), r"follow its form(.|\n)*axes"),
}


@pytest.mark.parametrize(("change", "text"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_specs_that_are_refused(change: Change, text: str) -> None:
    with pytest.raises(ExportError, match=text) as caught:
        load_factory(NAME, changed(change))
    assert "expected:" in str(caught.value)


SIGNATURES: dict[str, tuple[Change, str]] = {
    "another name": (lambda s: s["inputs"]["sample"].update(argument="sample"), "x"),
    "one too few": (lambda s: s["inputs"].pop("pooled"), "extras"),
    "one too many": (lambda s: s["arguments"].update(mask=1), "mask"),
}


@pytest.mark.parametrize(("change", "name"), SIGNATURES.values(), ids=SIGNATURES)
def test_specs_that_contradict_forward(change: Change, name: str) -> None:
    text = rf"not those of the network's forward(.|\n)*'{name}'(.|\n)*Sequences\.forward\(self, x(.|\n)*argument = "
    with pytest.raises(ExportError, match=text):
        load_factory(NAME, changed(change))


SPECS = {
    "no spec": (None, r"nothing says what the network takes(.|\n)*--spec FILE\.toml"),
    "missing file": ("nowhere.toml", r"the spec cannot be read(.|\n)*nowhere\.toml"),
    "missing module": ("no_such_module:SPEC", "names nothing that can be imported(.|\n)*no_such_module"),
    "no mapping": ("tiny_factories:NOT_A_SPEC", "the spec is no mapping(.|\n)*int"),
}


@pytest.mark.parametrize(("spec", "text"), SPECS.values(), ids=SPECS)
def test_specs_that_are_none(spec: str | None, text: str) -> None:
    with pytest.raises(ExportError, match=text):
        load_factory(NAME, spec)


@pytest.mark.parametrize("content", [b"inputs = ", b"\xff\xfe", b"{}"])
def test_files_that_are_not_toml(toml: Path, content: bytes) -> None:
    toml.write_bytes(content)
    with pytest.raises(ExportError, match=r"the spec is not TOML(.|\n)*spec\.toml"):
        load_factory(NAME, toml)


FACTORIES = {
    "tiny_factories:make_trouble": "the factory failed(.|\n)*OSError: the licence server is down",
    "tiny_factories:make_nothing": "makes no network(.|\n)*str(.|\n)*torch.nn.Module",
    "tiny_factories:NOT_A_SPEC": "the factory failed(.|\n)*not callable",
    "tiny_factories:nothing": "names nothing that can be imported(.|\n)*no attribute 'nothing'",
    "no_such_module:make": "names nothing that can be imported(.|\n)*No module named(.|\n)*install it",
    "broken_beside:make": "names nothing that can be imported(.|\n)*SyntaxError",
}


@pytest.mark.parametrize(("name", "text"), FACTORIES.items(), ids=FACTORIES)
def test_factories_that_fail(name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_beside.py").write_text("def make(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=text):
        load_factory(name, SPEC)


WEIGHTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing tensor": (lambda t: t.pop("text.bias"), r"are missing from the weights(.|\n)*text\.bias"),
    "other tensor": (lambda t: t.update(other=torch.zeros(1)), "the network has not(.|\n)*got: +other\n"),
    "shape": (
        lambda t: t.update({"text.bias": torch.zeros(3)}),
        r"another shape(.|\n)*text\.bias \(3,\) instead of \(8,\)",
    ),
    "NaN": (lambda t: t["text.bias"].fill_(float("nan")), r"hold NaN(.|\n)*text\.bias"),
}


@pytest.mark.parametrize(("damage", "text"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit(weights: Path, damage: Callable[..., object], text: str) -> None:
    tensors = dict(make().state_dict())
    damage(tensors)
    save_file(tensors, weights)
    with pytest.raises(ExportError, match=text) as caught:
        load_factory(NAME, SPEC, weights)
    assert f"expected: the tensors of the network in {NAME}\n" in str(caught.value)


def test_weights_that_are_no_safetensors(weights: Path) -> None:
    with pytest.raises(ExportError, match=r"the weights are missing(.|\n)*nowhere"):
        load_factory(NAME, SPEC, weights.with_name("nowhere"))
    weights.write_bytes(b"pickle")
    with pytest.raises(ExportError, match=r"weights\.safetensors is no whole safetensors file"):
        load_factory(NAME, SPEC, weights)


def test_a_spec_is_for_a_factory(pristine: Path, toml: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"are for a factory(.|\n)*PACKAGE\.MODULE:FACTORY"):
        export_bundle(pristine, tmp_path / "bundle", spec=toml)
