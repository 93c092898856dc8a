"""Bundles in C++: read as Python reads them, refused in Python's words, and sampled with guidance."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import cpp_guided
import pytest
from cpp_building import RELEASE, SANITIZED, SOURCE, THREADS, build, run
from cpp_bundles import FILES, onnx_model, write_folder

from dpmrt.engines import Network, record_file, shipped_bundle
from dpmrt.engines.schema import DType
from dpmrt.errors import DpmrtError
from dpmrt.runtime.bundle import open_bundle

CORPUS = sorted((SOURCE / "tests/corpus/manifests").glob("*.json"))
GOOD = (SOURCE / "tests/corpus/manifests/good.json").read_bytes()
#: what C++ refuses and Python takes
STRICTER = {
    "twice": "a key that stands twice",
    "shape-huge": "Number out of range - at `$.unet.inputs[0].shape[1]`",
    "shape-long": "`unet.inputs[0].shape` is out of range",
}


@pytest.fixture(scope="session")
def built(place: Path) -> Path:
    return build(place / "cpp", RELEASE)


@pytest.fixture(scope="session")
def sanitized(place: Path) -> Path:
    return build(place / "cpp-sanitized", *SANITIZED)


def opened(program: Path, folders: list[Path]) -> list[tuple[str, str]]:
    """Return status and text, of the error or of what is known, for each folder."""
    answers = run(program / "dpmrt_bundles", *folders).split("\f")[1:]
    assert len(answers) == len(folders)
    return [(status, text) for status, _, text in (answer.partition("\n") for answer in answers)]


def refusal(folder: Path) -> str:
    """Return Python's error for a folder, or nothing."""
    try:
        open_bundle(folder)
    except DpmrtError as error:
        return str(error)
    return ""


def test_manifests_are_refused_in_python_s_words(built: Path, sanitized: Path, tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / path.stem, path.read_bytes()) for path in CORPUS]
    answers = opened(built, folders)
    assert opened(sanitized, folders) == answers
    taken = []
    for folder, (status, text) in zip(folders, answers):
        expected = refusal(folder)
        if folder.name in STRICTER:
            assert (status, expected) == ("DPMRT_ERROR_FORMAT", "")
            assert STRICTER[folder.name] in text
        elif " is not JSON" in text:
            # what is wrong with the JSON each parser says in its own words
            parts = [line for line in text.splitlines() if "got:" not in line]
            assert status == "DPMRT_ERROR_FORMAT"
            assert "got:" in text
            assert parts == [line for line in expected.splitlines() if "got:" not in line] or folder.name == "escape"
        elif expected:
            assert text == expected, folder.name
            assert status == _status(folder.name)
        else:
            assert status == "DPMRT_OK", text
            taken.append(folder.name)
    assert sorted(taken) == ["good", "good-version-1", "good-with-all", "scale-tiny"]


def _status(name: str) -> str:
    if name.startswith("version-") or name == "no-version":
        return "DPMRT_ERROR_VERSION"
    return "DPMRT_ERROR_FILE" if name in ("file-missing", "file-folder") else "DPMRT_ERROR_FORMAT"


def _replace_graph(model: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "unet/model.onnx"
        path.write_bytes(model)
        manifest = json.loads(GOOD)
        record = record_file(path)
        manifest["files"]["unet/model.onnx"] = {"bytes": record.bytes, "sha256": record.sha256}
        (folder / "dpmrt.json").write_text(json.dumps(manifest))

    return change


def _link_outside(folder: Path) -> None:
    (folder.parent / "outside").write_bytes(FILES["unet/config.json"])
    (folder / "unet/config.json").unlink()
    (folder / "unet/config.json").symlink_to(folder.parent / "outside")


def _config(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)
        manifest, record = json.loads(GOOD), record_file(folder / name)
        manifest["files"][name] = {"bytes": record.bytes, "sha256": record.sha256}
        (folder / "dpmrt.json").write_text(json.dumps(manifest))

    return change


def _no_manifest(folder: Path) -> None:
    (folder / "dpmrt.json").unlink()
    # a graph without a manifest is what optimum writes, which Python opens
    (folder / "unet/model.onnx").unlink()


def _manifest_is_a_folder(folder: Path) -> None:
    (folder / "dpmrt.json").unlink()
    (folder / "dpmrt.json").mkdir()


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (
        lambda f: (f / "dpmrt.json").unlink() or (f / "unet/model.onnx").unlink(),
        "dpmrt.json is missing",
    ),
    "manifest is a folder": (_manifest_is_a_folder, "dpmrt.json cannot be read"),
    "no file": (lambda f: (f / "unet/model.onnx_data").unlink(), "a file of the bundle is missing"),
    "cut": (lambda f: (f / "unet/model.onnx_data").write_bytes(b"we"), "unet/model.onnx_data is truncated"),
    "longer": (lambda f: (f / "unet/model.onnx_data").write_bytes(b"weights!"), "is longer than it was"),
    "altered": (lambda f: (f / "unet/model.onnx_data").write_bytes(b"wEights"), "was altered"),
    "a link outside": (_link_outside, "a path leaves the bundle"),
    "weights outside": (_replace_graph(onnx_model("../../x", "model.onnx_data")), "a path leaves the bundle"),
    "weights anywhere": (_replace_graph(onnx_model("/etc/passwd")), "a path leaves the bundle"),
    "other weights": (_replace_graph(onnx_model("model.onnx_data", "./more")), "that `data` does not name"),
    "a graph cut off": (_replace_graph(FILES["unet/model.onnx"][:-3]), "is not an ONNX model"),
    "no graph": (_replace_graph(b"\x08\x08"), "is not an ONNX model"),
    "a graph of nothing": (_replace_graph(b"\x0f"), "is not an ONNX model"),
    "an endless number": (_replace_graph(b"\x08" + b"\xff" * 12), "is not an ONNX model"),
    "config is a list": (_config("unet/config.json", b"[]"), "unet/config.json is not a JSON object"),
    "scheduler of nothing": (_config("scheduler/scheduler_config.json", b'{"prediction_type": "guess"}'), "disagree"),
    "scheduler of another": (
        _config("scheduler/scheduler_config.json", b'{"_class_name": "EDMEulerScheduler"}'),
        "prediction_type 'edm' in scheduler",
    ),
}


@pytest.mark.parametrize("program", ["built", "sanitized"])
def test_folders_are_refused_in_python_s_words(program: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folders = []
    for name, (change, _) in FOLDERS.items():
        folders.append(write_folder(tmp_path / name / "bundle", GOOD))
        change(folders[-1])
    answers = opened(request.getfixturevalue(program), [*folders, tmp_path / "nowhere"])
    for folder, (_, text), (_, part) in zip(folders, answers, FOLDERS.values()):
        expected = refusal(folder)
        assert part in text
        if "is not a JSON object" in text:
            assert expected.replace("got:      list", "got:      a list") == text
        else:
            assert text == expected
    assert answers[-1] == ("DPMRT_ERROR_FILE", refusal(tmp_path / "nowhere"))


def test_a_link_to_itself_is_no_bundle(sanitized: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bundle", GOOD)
    (folder / "unet/config.json").unlink()
    (folder / "unet/config.json").symlink_to("config.json")
    ((status, text),) = opened(sanitized, [folder])
    assert status == "DPMRT_ERROR_FILE"
    assert "the bundle cannot be read" in text
    assert "the bundle cannot be read" in refusal(folder)


def test_a_manifest_that_never_ends_is_refused(sanitized: Path, tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / name, GOOD) for name in ("pipe", "long")]
    (folders[0] / "dpmrt.json").unlink()
    os.mkfifo(folders[0] / "dpmrt.json")
    (folders[1] / "dpmrt.json").write_bytes(b"[" + b"1," * (1 << 21) + b"1]")
    (first, why), (second, too_long) = opened(sanitized, folders)
    assert first == second == "DPMRT_ERROR_FILE"
    assert "dpmrt.json cannot be read" in why
    assert "is no file" in why
    assert "has more than 4194304 bytes" in too_long


def described(folder: Path) -> str:
    """Return what dpmrt_bundles prints, by Python's reader."""
    bundle = open_bundle(folder)
    manifest, guidance = bundle.manifest, bundle.manifest.guidance
    low, high = manifest.data_range
    label, scale = (-1, 1.0) if guidance is None else (guidance.null_label, guidance.scale)
    declared = manifest.unet.sample_shape
    sample = bundle.sample_shape or [axis if isinstance(axis, int) else 0 for axis in declared]
    lines = [
        f"bundle {manifest.name}: {manifest.prediction} [{low:g}, {high:g}], {manifest.defaults.steps} steps",
        f"guidance {int(guidance is not None)}: {bundle.classes or 0} {label} {scale:g}",
        " ".join(["sample", *map(str, sample)]),
    ]
    for kind, network in enumerate((manifest.unet, manifest.classifier)):
        if network is None:
            lines += [
                f"network {kind}: the bundle has no classifier",
                f"  got:      {folder}",
                "  expected: `classifier` in dpmrt.json",
                "  fix:      export the network again with it",
            ]
        else:
            lines += _network(kind, network, bundle.manifest.files)
    return "\n".join(lines) + "\n"


def _network(kind: int, network: Network, files: Any) -> list[str]:
    record = files[network.path]
    lines = [
        f"network {kind}: {network.path} {record.sha256} {record.bytes} {network.precision.kind}",
        f"channels {network.channel_axis} {network.extra_channels} {network.learned_channels} "
        f"{int(network.folded_guidance)}",
    ]
    for name, specs in (("input", network.inputs), ("output", network.outputs)):
        for spec in specs:
            shape = map(str, spec.shape)
            lines.append(" ".join([name, spec.role, spec.name, str(get_args(DType).index(spec.dtype)), *shape]))
    lines += [f"data {name} {files[name].sha256}" for name in network.data]
    for name, axis in network.axes.items():
        lines.append(f"axis {name} {axis.opt} {axis.min} {axis.max or 0} {axis.multiple}")
    return lines


def test_what_is_known_of_a_bundle_is_what_python_knows(
    built: Path, labelled: Path, plain: Path, tmp_path: Path
) -> None:
    corpus = {path.stem: path.read_bytes() for path in CORPUS}
    folders = [shipped_bundle("digits"), labelled, plain]
    folders += [write_folder(tmp_path / name, corpus[name]) for name in ("good", "good-with-all")]
    for folder, (status, text) in zip(folders, opened(built, folders)):
        assert status == "DPMRT_OK", text
        assert text == described(folder)


def test_guided_trajectories_are_replayed(built: Path, guided: Path) -> None:
    shown = run(built / "dpmrt_guided", guided)
    assert shown.count(" ok ") == 4 * len(cpp_guided.CASES)


@pytest.mark.parametrize("options", [SANITIZED, THREADS])
def test_guidance_under_the_sanitizers(place: Path, guided: Path, options: tuple[str, ...]) -> None:
    name = "cpp-sanitized" if options is SANITIZED else "cpp-threads"
    run(build(place / name, *options) / "dpmrt_guided", guided)


def test_what_is_made_of_broken_manifests_is_refused_or_read(sanitized: Path, tmp_path: Path) -> None:
    for path in CORPUS:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "graph.onnx").write_bytes(FILES["unet/model.onnx"])
    shown = run(sanitized / "dpmrt_fuzz_manifest", tmp_path, "20")
    assert shown == f"{21 * (len(CORPUS) + 1)} inputs\n"
