"""A certificate holds a classifier's gradient and a vector-Jacobian product against torch too."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from tiny_networks import save_scheduler
from vjp_factories import spec

from dpmrt.engines import (
    GraphParity,
    Limits,
    ParityReport,
    read_manifest,
    read_parity,
    record_file,
    write_manifest,
)
from dpmrt.errors import BundleError, OptionError, VerificationError
from dpmrt.export import export_bundle, verify
from dpmrt.export.certificate import TorchRunner
from dpmrt.export.certificate.classifier_source import find_classifier
from dpmrt.export.classifier import RECORD, load_classifier_source
from dpmrt.export.cli.verify import command
from dpmrt.export.sources import load_source

CHECKPOINT = Path(__file__).parents[2] / "engines/checkpoints/digits-classifier"
SPEC = spec(2, 2)
FILES = {"gradient": "classifier/model.onnx", "vjp": "vjp/model.onnx", "out_sample": "vjp/model.onnx"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both graphs; for reading only."""
    folder = tmp_path_factory.mktemp("backward")
    judge = load_classifier_source("small_classifiers:judge", sample_shape=(2, 4, 4), classes=5)
    return export_bundle(
        "vjp_factories:plain",
        folder / "bundle",
        spec=SPEC,
        scheduler=save_scheduler(folder),
        classifier=dataclasses.replace(judge, folder=folder / "judge"),
        vjp=True,
    )


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def held(bundle: Path, **options: Any) -> ParityReport:
    return verify(bundle, spec=SPEC, steps=2, plot=False, **options)


def with_graph(bundle: Path, path: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change a graph of the bundle, and let the manifest agree with it."""
    model = onnx.load(bundle / path)
    change(model)
    onnx.save(model, bundle / path)
    manifest = read_manifest(bundle, check=False)
    files = {**manifest.files, path: record_file(bundle / path)}
    write_manifest(bundle, msgspec.structs.replace(manifest, files=files))


def times_everywhere(role: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    """Return a change of a graph whose output of this name is so many times what it was."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        for node in graph.node:
            for at, name in enumerate(node.output):
                if name == role:
                    node.output[at] = "before"
        graph.initializer.append(onnx.numpy_helper.from_array(np.float32(factor), "factor"))
        graph.node.append(onnx.helper.make_node("Mul", ["before", "factor"], [role]))

    return change


def test_both_are_compared_and_kept_in_the_report(bundle: Path) -> None:
    phases: list[str] = []
    report = held(bundle, seed=4, progress=lambda phase, done, total: total or phases.append(phase))
    assert report.passed
    assert [(part.network, part.output, part.limits.call_rms) for part in report.graphs] == [
        ("classifier", "gradient", 1e-5),
        ("vjp", "vjp", 1e-4),
        ("vjp", "out_sample", 1e-4),
    ]
    for part in report.graphs:
        assert (part.backend, part.failures) == ("onnxruntime", ())
        assert [call.sizes["batch"] for call in part.calls] == [1, 1, 1, 1, 3, 3]
        assert [call.times[0] for call in part.calls] == [
            0.0,
            pytest.approx(0.37),
            499.0,
            999.0,
            pytest.approx(0.37),
            999.0,
        ]
        assert [call.seed for call in part.calls] == [4, 5, 6, 7, 8, 9]
        assert all(call.rms > 0 for call in part.calls)
        assert part.worst is not None
        assert 0 < part.worst < 1e-5
    classifier, product, _ = report.graphs
    assert classifier.weights_sha256 == config_of(bundle)["weights_sha256"]
    assert product.weights_sha256 == report.weights_sha256
    assert read_parity(bundle) == report
    assert phases == [
        "torch: single calls",
        "torch: trajectory",
        "torch: classifier",
        "torch: vjp",
        "onnxruntime: single calls",
        "onnxruntime: trajectory",
        "bundle: classifier",
        "bundle: vjp",
    ]


@pytest.mark.parametrize("changed", [("gradient", "out_sample"), ("vjp",)], ids="-".join)
def test_a_graph_that_gives_something_else_fails(bundle: Path, changed: tuple[str, ...]) -> None:
    for output in changed:
        with_graph(bundle, FILES[output], times_everywhere(output, 1.001))
    report = held(bundle)
    assert not report.passed
    assert all(side.passed for side in report.backends)
    assert [part.output for part in report.graphs if not part.passed] == list(changed)
    for part in report.graphs:
        if part.output in changed:
            assert part.worst == pytest.approx(1e-3, rel=1e-2)
            assert len(part.failures) == 6
            assert re.match(
                r"call 1 \(batch 1, t = 0\): errors whose RMS is 1.0e-03 of the RMS, limit 1e-0[45]", part.failures[0]
            )


def test_a_graph_that_gives_nan_fails(bundle: Path) -> None:
    for output in ("gradient", "vjp"):
        with_graph(bundle, FILES[output], times_everywhere(output, np.nan))
    failed = [part for part in held(bundle).graphs if not part.passed]
    assert [(part.output, part.worst) for part in failed] == [("gradient", None), ("vjp", None)]
    for part in failed:
        assert part.failures[0] == "call 1 (batch 1, t = 0): the bundle gave NaN or infinity"


def test_torch_reads_weights_that_can_be_differentiated_through_later(checkpoint: Path) -> None:
    source = load_source(checkpoint)
    with TorchRunner(source) as runner:
        runner.infer(source.interface.examples(), check_inputs=False)
    assert not any(parameter.is_inference() for parameter in source.model.parameters())


def test_the_terminal_shows_them(bundle: Path) -> None:
    with_graph(bundle, "classifier/model.onnx", times_everywhere("gradient", 0.5))
    arguments = [str(bundle), "--steps", "2", "--no-plot", "--spec", "vjp_factories:PLAIN_SPEC"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 1, result.output
    assert "=== classifier/model.onnx: gradient of log p(y | x) ===" in result.output
    assert "=== vjp/model.onnx: vector-Jacobian product ===" in result.output
    assert re.search("classifier: +RMS of a call 5.00e-01: FAIL", result.output)
    assert re.search("vjp out_sample: +RMS of a call .*: PASS", result.output)
    left_out = CliRunner().invoke(command, [*arguments, "--no-classifier"])
    assert left_out.exit_code == 0, left_out.output
    assert "classifier/model.onnx" not in left_out.output
    report = read_parity(bundle)
    assert report is not None
    assert [part.network for part in report.graphs] == ["vjp", "vjp"]
    result = CliRunner().invoke(command, [*arguments, "--no-classifier", "--classifier", "somewhere"])
    assert isinstance(result.exception, OptionError)
    assert result.exception.what == "--classifier and --no-classifier contradict each other"


def test_an_export_says_where_the_classifier_was(whole: Path) -> None:
    assert read_manifest(whole).provenance[RECORD] == "../judge"


def test_a_factory_is_called_again(bundle: Path) -> None:
    manifest, config = read_manifest(bundle), config_of(bundle)
    found = find_classifier(bundle, manifest, None)
    assert found is not None
    assert (found.weights_sha256, found.sample_shape, found.classes) == (config["weights_sha256"], (2, 4, 4), 5)
    write_config(bundle, {**config, "kind": "small_classifiers:gone"})
    with pytest.raises(VerificationError, match="the classifier's factory failed"):
        find_classifier(bundle, manifest, None)


def test_a_folder_is_found_again_where_it_was(bundle: Path) -> None:
    judge = Path(shutil.copytree(CHECKPOINT, bundle.parent / "judge"))
    write_config(bundle, dict(load_classifier_source(judge).config))
    manifest = read_manifest(bundle, check=False)
    found = find_classifier(bundle, manifest, None)
    assert found is not None
    assert found.folder == judge.resolve()
    elsewhere = judge.rename(bundle.parent / "moved")
    with pytest.raises(
        VerificationError, match="the classifier in torch that the bundle's came from is not there"
    ) as caught:
        find_classifier(bundle, manifest, None)
    assert str(caught.value.got).startswith("no folder")
    assert "--no-classifier" in str(caught.value.fix)
    assert find_classifier(bundle, manifest, False) is None
    assert find_classifier(bundle, manifest, elsewhere) is not None
    with pytest.raises(VerificationError, match="no classifier here"):
        find_classifier(bundle, manifest, judge)
    with pytest.raises(VerificationError) as caught:
        find_classifier(bundle, msgspec.structs.replace(manifest, provenance={}), None)
    assert caught.value.got == "no `classifier_source` in the manifest's provenance"


def test_another_classifier_is_refused(bundle: Path) -> None:
    manifest, judge = read_manifest(bundle), find_classifier(bundle, read_manifest(bundle), None)
    assert judge is not None
    write_config(bundle, {**config_of(bundle), "weights_sha256": "0" * 64})
    with pytest.raises(
        VerificationError, match="the classifier in torch has changed since it was exported"
    ) as caught:
        find_classifier(bundle, manifest, None)
    assert caught.value.expected == f"SHA-256 {'0' * 64}"
    # One that is named may be another: whether it computes the same shows in the numbers.
    assert find_classifier(bundle, manifest, judge) is judge
    with pytest.raises(VerificationError, match="the classifier in torch is another than the bundle's") as caught:
        find_classifier(bundle, manifest, dataclasses.replace(judge, sample_shape=(2, 8, 8)))
    assert caught.value.got == "5 classes of samples of (2, 8, 8)"


def test_bad_requests(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    without = msgspec.structs.replace(manifest, classifier=None)
    assert find_classifier(bundle, without, None) is None
    with pytest.raises(OptionError, match="the bundle has no classifier"):
        find_classifier(bundle, without, "somewhere")
    (bundle / "classifier/config.json").write_text("{")
    with pytest.raises(BundleError, match="the config of the bundle's classifier cannot be read"):
        find_classifier(bundle, manifest, None)


def config_of(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "classifier/config.json").read_text()))


def write_config(bundle: Path, config: dict[str, Any]) -> None:
    (bundle / "classifier/config.json").write_text(json.dumps(config))


def test_a_report_of_before_has_none(bundle: Path) -> None:
    report = held(bundle, classifier=False)
    content = json.loads(msgspec.json.encode(report))
    del content["graphs"]
    (bundle / "parity.json").write_text(json.dumps(content))
    older = read_parity(bundle)
    assert older is not None
    assert older.graphs == ()


def test_the_worst_of_no_numbers_is_none() -> None:
    part = GraphParity("vjp", "vjp", True, "onnxruntime", "vjp/model.onnx", "", "", Limits(call=None, drift=None), ())
    assert part.worst is None
