"""Every defect of a bundle has its own error, and the error says what stood there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dpmrt.engines import (
    Guidance,
    Manifest,
    Network,
    TensorSpec,
    is_shipped,
    read_manifest,
    record_file,
    shipped_bundle,
    write_manifest,
)
from dpmrt.errors import BundleError, IntegrityError, ManifestError, OutputError


def field(number: int, *values: bytes) -> bytes:
    """Encode one protobuf field of at most 127 bytes."""
    value = b"".join(values)
    return bytes([number << 3 | 2, len(value)]) + value


def external(location: str) -> bytes:
    """Encode a TensorProto whose numbers lie in another file."""
    entries = [("offset", "0"), ("location", location)]
    return (
        b"".join(field(13, field(1, key.encode()), field(2, value.encode())) for key, value in entries) + b"\x70\x01"
    )


def onnx_model(*locations: str) -> bytes:
    """Encode a ModelProto with one weight in each of the files."""
    return field(7, field(2, b"tiny"), *(field(5, external(location)) for location in locations))


FILES = {
    "unet/model.onnx": onnx_model("model.onnx_data"),
    "unet/model.onnx_data": b"weights",
    "unet/config.json": b"{}",
    "scheduler/scheduler_config.json": b"{}",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    network = Network(
        path="unet/model.onnx",
        data=("unet/model.onnx_data",),
        config="unet/config.json",
        inputs=(
            TensorSpec("sample", "sample", "float32", ("batch", 1, 8, 8)),
            TensorSpec("timestep", "timestep", "float32", ("batch",)),
        ),
        outputs=(TensorSpec("out_sample", "out_sample", "float32", ("batch", 1, 8, 8)),),
    )
    write_manifest(
        folder,
        Manifest(
            format="dpmrt-bundle",
            version=1,
            name="digits",
            unet=network,
            scheduler="scheduler/scheduler_config.json",
            prediction="epsilon",
            guidance=Guidance("classifier_free", 10, 10, 2.0),
            files={name: record_file(folder / name) for name in FILES},
        ),
    )
    return folder


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "dpmrt.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def test_a_whole_bundle_reads_back(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.name == "digits"
    assert manifest.unet.sample_shape == (1, 8, 8)
    assert manifest.unet.input("class_labels") is None
    assert manifest.guidance == Guidance("classifier_free", 10, 10, 2.0)
    assert sorted(path.name for path in bundle.iterdir()) == ["dpmrt.json", "scheduler", "unet"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle folder here") as caught:
        read_manifest(tmp_path / "nowhere")
    assert "nowhere" in str(caught.value)
    assert "dpmrt export" in str(caught.value)


def test_missing_manifest(bundle: Path) -> None:
    (bundle / "dpmrt.json").unlink()
    with pytest.raises(BundleError, match=r"dpmrt\.json is missing(.|\n)*dpmrt export SOURCE -o BUNDLE"):
        read_manifest(bundle)


def test_manifest_is_a_folder(bundle: Path) -> None:
    (bundle / "dpmrt.json").unlink()
    (bundle / "dpmrt.json").mkdir()
    with pytest.raises(BundleError, match=r"dpmrt\.json cannot be read"):
        read_manifest(bundle)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"])
def test_not_json(bundle: Path, raw: bytes) -> None:
    (bundle / "dpmrt.json").write_bytes(raw)
    with pytest.raises(ManifestError, match=r"dpmrt\.json is not JSON"):
        read_manifest(bundle)


@pytest.mark.parametrize("raw", ["[]", "3", '{"format": "optimum"}', '{"version": 1}'])
def test_other_format(bundle: Path, raw: str) -> None:
    (bundle / "dpmrt.json").write_text(raw)
    with pytest.raises(ManifestError, match=r"`format` is not dpmrt's(.|\n)*'dpmrt-bundle'"):
        read_manifest(bundle)


@pytest.mark.parametrize("version", [0, 4, "1", True, 2.0, None])
def test_unknown_version(bundle: Path, version: object) -> None:
    rewrite(bundle, lambda fields: fields.update(version=version))
    with pytest.raises(ManifestError, match="unknown `version`") as caught:
        read_manifest(bundle)
    assert repr(version) in str(caught.value)


SCHEMA_DEFECTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown field": (lambda f: f.update(colour="red"), "unknown field `colour`"),
    "unknown nested field": (lambda f: f["unet"].update(colour="red"), r"unknown field `colour` - at `\$.unet`"),
    "missing field": (lambda f: f.pop("scheduler"), "missing required field `scheduler`"),
    "wrong type": (lambda f: f.update(name=3), r"\$.name"),
    "wrong nested type": (lambda f: f["guidance"].update(scale="two"), r"\$.guidance.scale"),
    "unknown prediction": (lambda f: f.update(prediction="guess"), r"\$.prediction"),
    "unknown role": (lambda f: f["unet"]["inputs"][0].update(role="The mask"), r"\$.unet.inputs\[\d\].role"),
    "no size": (
        lambda f: f["unet"].update(axes={"batch": {"opt": 0}}),
        r"Expected `int` >= 1 - at `\$.unet.axes\[...\].opt`",
    ),
    "unknown precision": (
        lambda f: f["unet"].update(precision={"kind": "int4"}),
        r"Invalid enum value 'int4' - at `\$.unet.precision.kind`",
    ),
    "unknown dtype": (lambda f: f["unet"]["inputs"][1].update(dtype="int8"), r"\$.unet.inputs\[\d\].dtype"),
    "negative size": (lambda f: f["files"]["unet/model.onnx"].update(bytes=-1), r"\$.files\[...\].bytes"),
    "short hash": (lambda f: f["files"]["unet/model.onnx"].update(sha256="ab"), r"\$.files\[...\].sha256"),
    "not a number": (lambda f: f.update(data_range=[float("nan"), 1]), "does not follow the schema"),
    "endless number": (lambda f: f["guidance"].update(scale=10**400), r"\$.guidance.scale"),
    "range of three": (lambda f: f.update(data_range=[0, 1, 2]), r"\$.data_range"),
}


@pytest.mark.parametrize(("change", "text"), SCHEMA_DEFECTS.values(), ids=SCHEMA_DEFECTS)
def test_schema_defects_name_the_field(bundle: Path, change: Callable[[dict[str, Any]], object], text: str) -> None:
    rewrite(bundle, change)
    with pytest.raises(ManifestError, match=text) as caught:
        read_manifest(bundle)
    assert "fix:" in str(caught.value)


OUT_OF_RANGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "range upside down": (
        lambda f: f.update(data_range=[1, -1]),
        r"`data_range` is out of range(.|\n)*\[1.0, -1.0\]",
    ),
    "range of nothing": (lambda f: f.update(data_range=[0, 0]), "`data_range` is out of range"),
    "no classes": (lambda f: f["guidance"].update(classes=0), "`guidance.classes` is out of range(.|\n)*got: +0"),
    "no label": (lambda f: f["guidance"].update(null_label=-1), "`guidance.null_label` is out of range(.|\n)*-1"),
    "huge label": (lambda f: f["guidance"].update(null_label=2**31), "`guidance.null_label` is out of range"),
    "no steps": (lambda f: f["defaults"].update(steps=0), "`defaults.steps` is out of range(.|\n)*1 to 10000"),
    "endless steps": (lambda f: f["defaults"].update(steps=10_001), "`defaults.steps` is out of range(.|\n)*10001"),
}


@pytest.mark.parametrize(("change", "text"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_numbers_out_of_range_name_the_field(
    bundle: Path, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    rewrite(bundle, change)
    with pytest.raises(ManifestError, match=text) as caught:
        read_manifest(bundle, check=False)
    assert "fix:" in str(caught.value)


def put(bundle: Path, name: str, content: bytes) -> None:
    """Put a file into a bundle as if it had been exported with it."""
    (bundle / name).write_bytes(content)
    record = msgspec.to_builtins(record_file(bundle / name))
    rewrite(bundle, lambda fields: fields["files"].update({name: record}))


@pytest.mark.parametrize(
    ("labels", "text"),
    [(9, "`guidance.classes` is out of range(.|\n)*labels below 9"), (10, "`guidance.null_label` is(.|\n)*below 10")],
)
def test_labels_that_the_network_has_not(bundle: Path, labels: int, text: str) -> None:
    put(bundle, "unet/config.json", json.dumps({"num_class_embeds": labels}).encode())
    with pytest.raises(ManifestError, match=text):
        read_manifest(bundle)


@pytest.mark.parametrize("config", ['{"num_class_embeds": 11}', '{"num_class_embeds": null}', "[]", "{"])
def test_a_config_that_forbids_no_label(bundle: Path, config: str) -> None:
    put(bundle, "unet/config.json", config.encode())
    assert read_manifest(bundle).guidance is not None


NESTED = {
    "weight": field(5, external("other")),
    "constant": field(1, field(5, field(5, external("other")))),
    "branch": field(1, field(5, field(6, field(5, external("other"))))),
    "sparse": field(15, field(1, external("other"))),
}


@pytest.mark.parametrize("graph", NESTED.values(), ids=NESTED)
def test_weights_in_a_file_that_the_manifest_does_not_name(bundle: Path, graph: bytes) -> None:
    (bundle / "unet/other").write_bytes(b"unseen")
    put(bundle, "unet/model.onnx", field(7, graph))
    with pytest.raises(ManifestError, match=r"weights in a file that `data` does not name(.|\n)*'unet/other'"):
        read_manifest(bundle)
    put(bundle, "unet/other", b"unseen")
    with pytest.raises(ManifestError, match=r"`data` does not name"):
        read_manifest(bundle)
    rewrite(bundle, lambda fields: fields["unet"]["data"].append("unet/other"))
    assert read_manifest(bundle).unet.data == ("unet/model.onnx_data", "unet/other")


@pytest.mark.parametrize("location", ["../../secret", "/etc/passwd", "..\\secret"])
def test_weights_outside_the_folder(bundle: Path, location: str) -> None:
    put(bundle, "unet/model.onnx", onnx_model(location))
    with pytest.raises(ManifestError, match=r"a path leaves the bundle(.|\n)*weights of unet/model\.onnx"):
        read_manifest(bundle)


GARBAGE = [
    b"",
    b"graph",
    field(2, b"no graph"),
    onnx_model("a")[:-3],
    b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x3a",
]


@pytest.mark.parametrize("content", GARBAGE)
def test_a_graph_that_is_no_onnx(bundle: Path, content: bytes) -> None:
    put(bundle, "unet/model.onnx", content)
    with pytest.raises(BundleError, match=r"unet/model\.onnx is not an ONNX model"):
        read_manifest(bundle)


def test_the_shipped_bundle_is_told_from_a_copy(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shipped_bundle("digits"), tmp_path / "digits"))
    assert is_shipped(shipped_bundle("digits"))
    assert not is_shipped(copy)
    assert not is_shipped(shipped_bundle("digits").parent)
    assert read_manifest(copy) == read_manifest(shipped_bundle("digits"))


OUTSIDE = ["/etc/passwd", "../secret", "unet/../../secret", "..\\secret", "", ".", "a\0b"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_path_that_leaves_the_folder(bundle: Path, name: str) -> None:
    rewrite(bundle, lambda fields: fields.update(scheduler=name))
    with pytest.raises(ManifestError, match="a path leaves the bundle") as caught:
        read_manifest(bundle)
    assert f"scheduler = {name!r}" in str(caught.value)


def test_recorded_path_that_leaves_the_folder(bundle: Path) -> None:
    rewrite(bundle, lambda fields: fields["files"].update({"../x": {"bytes": 0, "sha256": "0" * 64}}))
    with pytest.raises(ManifestError, match=r"a path leaves the bundle(.|\n)*files\['\.\./x'\]"):
        read_manifest(bundle)


def test_symlink_out_of_the_folder(bundle: Path) -> None:
    secret = bundle.parent / "secret"
    secret.write_bytes(FILES["unet/model.onnx"])
    (bundle / "unet/model.onnx").unlink()
    (bundle / "unet/model.onnx").symlink_to(secret)
    with pytest.raises(ManifestError, match=r"a path leaves the bundle(.|\n)*unet\.path"):
        read_manifest(bundle)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("unet.path", "unet/model.onnx"),
        (r"unet.data\[0\]", "unet/model.onnx_data"),
        ("unet.config", "unet/config.json"),
        ("scheduler", "scheduler/scheduler_config.json"),
    ],
)
def test_used_file_without_a_record(bundle: Path, field: str, name: str) -> None:
    rewrite(bundle, lambda fields: fields["files"].pop(name))
    with pytest.raises(ManifestError, match=f"`{field}` names a file without a record") as caught:
        read_manifest(bundle)
    assert repr(name) in str(caught.value)


ROLE_DEFECTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no timestep": (lambda f: f["unet"]["inputs"].pop(), r"`unet.inputs` has the wrong roles"),
    "sample twice": (
        lambda f: f["unet"]["inputs"].append(f["unet"]["inputs"][0]),
        r"sample, timestep, sample(.|\n)*each role once",
    ),
    "no output": (lambda f: f["unet"]["outputs"].clear(), r"`unet.outputs` has the wrong roles(.|\n)*none"),
}


@pytest.mark.parametrize(("change", "text"), ROLE_DEFECTS.values(), ids=ROLE_DEFECTS)
def test_wrong_roles(bundle: Path, change: Callable[[dict[str, Any]], object], text: str) -> None:
    rewrite(bundle, change)
    with pytest.raises(ManifestError, match=text):
        read_manifest(bundle)


@pytest.mark.parametrize("name", FILES)
def test_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"a file of the bundle is missing(.|\n)*no {name} in"):
        read_manifest(bundle)
    assert read_manifest(bundle, check=False).name == "digits"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"wei", "unet/model.onnx_data is truncated\n  got:      3 bytes\n  expected: 7 bytes"),
        (b"weights!", "unet/model.onnx_data is longer than it was\n  got:      8 bytes\n  expected: 7 bytes"),
        (b"weighty", "unet/model.onnx_data was altered\n  got:      SHA-256 "),
    ],
    ids=["truncated", "longer", "altered"],
)
def test_damaged_file(bundle: Path, content: bytes, text: str) -> None:
    (bundle / "unet/model.onnx_data").write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        read_manifest(bundle)
    assert text in str(caught.value)
    assert "dpmrt export SOURCE -o BUNDLE" in str(caught.value)


def test_writing_replaces_the_manifest_whole(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_manifest(bundle)
    before = (bundle / "dpmrt.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        write_manifest(bundle, manifest)
    monkeypatch.undo()
    assert (bundle / "dpmrt.json").read_bytes() == before
    assert sorted(path.name for path in bundle.iterdir()) == ["dpmrt.json", "scheduler", "unet"]


AXES: dict[str, tuple[dict[str, Any], str]] = {
    "another axis": ({"height": {"opt": 8}}, r"`unet\.axes\['height'\]` is out of range(.|\n)*one of batch"),
    "upside down": ({"batch": {"opt": 4, "min": 4, "max": 2}}, r"min 4, max 2(.|\n)*the smaller one first"),
    "usual size": (
        {"batch": {"opt": 3, "min": 2, "max": 8, "multiple": 2}},
        r"axes\['batch'\]\.opt` is out of range(.|\n)*got: +3(.|\n)*2 to 8, in multiples of 2",
    ),
}


@pytest.mark.parametrize(("axes", "text"), AXES.values(), ids=AXES)
def test_axes_that_no_network_has(bundle: Path, axes: dict[str, Any], text: str) -> None:
    rewrite(bundle, lambda fields: fields["unet"].update(axes=axes))
    with pytest.raises(ManifestError, match=text):
        read_manifest(bundle)


def test_more_channels_in_than_out_are_a_condition() -> None:
    def network(taken: int, given: int, axis: int = 1, rank: int = 4) -> Network:
        shapes = [["batch", *[8] * (rank - 1)] for _ in range(2)]
        shapes[0][axis], shapes[1][axis] = taken, given
        specs = [TensorSpec(role, role, "float32", tuple(s)) for role, s in zip(("sample", "out_sample"), shapes)]
        return Network("unet/model.onnx", (specs[0],), (specs[1],), channel_axis=axis)

    assert (network(9, 4).sample_shape, network(9, 4).extra_channels) == ((4, 8, 8), 5)
    assert (network(3, 6).sample_shape, network(3, 6).extra_channels) == ((3, 8, 8), 0)
    assert [network(*sizes).learned_channels for sizes in ((3, 6), (3, 3), (9, 4))] == [3, 0, 0]
    assert (network(8, 4, 2, 5).sample_shape, network(8, 4, 2, 5).extra_channels) == ((8, 4, 8, 8), 4)


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_are_still_read(bundle: Path, version: int) -> None:
    rewrite(bundle, lambda fields: fields.update(version=version) or fields.pop("eps_power"))
    assert read_manifest(bundle).unet.precision.kind == "fp32"
