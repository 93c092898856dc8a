"""The folder of built engines: what is written loads, and what was touched does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dpmrt.engines.built import (
    EngineManifest,
    EngineTensor,
    Flags,
    Library,
    Range,
    Request,
    Target,
    build_lock,
    engines_folder,
    hashes,
    list_engines,
    read_engine,
    remembered_hash,
    write_engine,
)
from dpmrt.engines.manifest import hash_file
from dpmrt.errors import BundleError, IntegrityError, ManifestError, OutputError

PLAN = b"a plan" * 300_000


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def request_(**changed: Any) -> Request:
    fields: dict[str, Any] = {
        "network": "unet",
        "source": {"unet/model.onnx": "a" * 64},
        "precision": "fp32",
        "library": Library("tensorrt_rtx", "1.7.1.116"),
        "target": Target("portable", "linux-x86_64"),
        "profiles": ({"sample": Range((1, 4), (2, 4), (8, 4))},),
    }
    return Request(**{**fields, **changed})


def written(folder: Path, request: Request | None = None, plan: bytes = PLAN) -> tuple[EngineManifest, Path]:
    folder.mkdir(exist_ok=True)
    scratch = folder / ".scratch.tmp"
    scratch.write_bytes(plan)
    tensor = EngineTensor("sample", "float32", ("batch", 4))
    return write_engine(
        folder, request or request_(), scratch, inputs=(tensor,), outputs=(tensor,), facts={"seconds": 1.5}
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    manifest, plan = written(tmp_path / "engines")
    assert read_engine(tmp_path / "engines", manifest.key) == (manifest, plan)
    assert plan.read_bytes() == PLAN
    assert [entry.manifest for entry in list_engines(tmp_path / "engines")] == [manifest]
    assert sorted(path.name for path in (tmp_path / "engines").iterdir()) == [
        f"{manifest.key}.json",
        f"{manifest.key}.plan",
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"source": {"unet/model.onnx": "b" * 64}},
        {"source": {"unet/model.onnx": "a" * 64, "unet/model.onnx_data": "a" * 64}},
        {"network": "classifier"},
        {"precision": "fp16"},
        {"library": Library("tensorrt_rtx", "1.7.2.0")},
        {"library": Library("tensorrt", "1.7.1.116")},
        {"target": Target("portable", "linux-aarch64")},
        {"target": Target("portable", "linux-x86_64", capabilities=("8.9",))},
        {"target": Target("device", "linux-x86_64", "NVIDIA L4", "8.9")},
        {"profiles": ({"sample": Range((1, 4), (2, 4), (9, 4))},)},
        {"profiles": ()},
        {"flags": Flags(optimization_level=2)},
        {"flags": Flags(memory_pools={"workspace": 1 << 20})},
        {"flags": Flags(tf32=False)},
        {"flags": Flags(weight_streaming=True)},
        {"recipe": 0},
    ],
    ids=str,
)
def test_every_field_is_in_the_key(changed: dict[str, Any]) -> None:
    assert request_(**changed).key() != request_().key()
    assert request_().key() == request_().key()


def test_the_order_of_a_dictionary_is_not_in_the_key() -> None:
    source = {"a": "a" * 64, "b": "b" * 64}
    assert request_(source=source).key() == request_(source=dict(reversed(source.items()))).key()


def test_a_truncated_plan(tmp_path: Path) -> None:
    manifest, plan = written(tmp_path)
    os.truncate(plan, len(PLAN) - 1)
    with pytest.raises(IntegrityError, match=f"{manifest.key}.plan is truncated\n.*1799999 bytes\n.*1800000 bytes"):
        read_engine(tmp_path, manifest.key)


def test_an_altered_plan_of_the_same_size_and_time(tmp_path: Path) -> None:
    manifest, plan = written(tmp_path)
    before = plan.stat()
    with plan.open("r+b") as stream:
        stream.write(b"A")
    os.utime(plan, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(IntegrityError, match="was altered"):
        read_engine(tmp_path, manifest.key)


def test_a_plan_of_another_engine(tmp_path: Path) -> None:
    manifest, plan = written(tmp_path)
    _, other = written(tmp_path, request_(precision="fp16"), PLAN[::-1])
    os.replace(other, plan)
    with pytest.raises(IntegrityError, match="was altered"):
        read_engine(tmp_path, manifest.key)


def test_a_missing_plan(tmp_path: Path) -> None:
    manifest, plan = written(tmp_path)
    plan.unlink()
    with pytest.raises(BundleError, match=r"plan of a built engine is missing[\s\S]*dpmrt build BUNDLE --force"):
        read_engine(tmp_path, manifest.key)


def test_a_plan_without_a_sidecar_is_no_engine(tmp_path: Path) -> None:
    manifest, _ = written(tmp_path)
    (tmp_path / f"{manifest.key}.json").unlink()
    assert list_engines(tmp_path) == []
    with pytest.raises(BundleError, match="no such engine"):
        read_engine(tmp_path, manifest.key)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (b"{", ManifestError, "is not JSON"),
        (b"[]", ManifestError, "`format` is not a built engine's\n.*'list'"),
        (b'{"format": "dpmrt-bundle"}', ManifestError, "`format` is not a built engine's\n.*'dpmrt-bundle'"),
        (b'{"format": "dpmrt-engine", "version": 2}', ManifestError, "unknown `version`\n.*2\n.*1"),
        (b'{"format": "dpmrt-engine", "version": 1}', ManifestError, "does not follow the schema"),
    ],
)
def test_a_damaged_sidecar(tmp_path: Path, text: bytes, error: type[Exception], said: str) -> None:
    manifest, _ = written(tmp_path)
    (tmp_path / f"{manifest.key}.json").write_bytes(text)
    with pytest.raises(error, match=said):
        read_engine(tmp_path, manifest.key)
    (entry,) = list_engines(tmp_path)
    assert entry.manifest is None
    assert isinstance(entry.problem, error)


@pytest.mark.parametrize("field", ["precision", "recipe"])
def test_a_sidecar_whose_request_was_edited(tmp_path: Path, field: str) -> None:
    manifest, _ = written(tmp_path)
    sidecar = tmp_path / f"{manifest.key}.json"
    content = json.loads(sidecar.read_text())
    content["request"][field] = {"precision": "fp16", "recipe": 7}[field]
    sidecar.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="`key` is not the key of its request"):
        read_engine(tmp_path, manifest.key)


def test_a_sidecar_under_another_name(tmp_path: Path) -> None:
    manifest, _ = written(tmp_path)
    (tmp_path / f"{manifest.key}.json").rename(tmp_path / f"{'0' * 16}.json")
    with pytest.raises(IntegrityError, match="`key` is not its file's name"):
        read_engine(tmp_path, "0" * 16)


def test_a_plan_replaced_by_force_is_described_by_its_own_sidecar_or_by_none(tmp_path: Path) -> None:
    manifest, _ = written(tmp_path)
    # What stands between the two renames of a forced build: the new plan, and no sidecar.
    scratch = tmp_path / ".scratch.tmp"
    scratch.write_bytes(b"new")
    (tmp_path / f"{manifest.key}.json").unlink()
    os.replace(scratch, tmp_path / f"{manifest.key}.plan")
    assert list_engines(tmp_path) == []


def test_where_engines_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DPMRT_ENGINES", raising=False)
    assert engines_folder(tmp_path) == tmp_path / "engines"
    monkeypatch.setenv("DPMRT_ENGINES", "/elsewhere")
    assert engines_folder(tmp_path) == Path("/elsewhere")
    assert engines_folder(tmp_path, "mine") == Path("mine")


def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    waited = threading.Event()
    order: list[str] = []

    def second() -> None:
        with build_lock(tmp_path, "0" * 16, waited.set):
            order.append("second")

    with build_lock(tmp_path, "0" * 16, lambda: order.append("never")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_the_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from dpmrt.engines.built import build_lock\n"
        "with build_lock(pathlib.Path(sys.argv[1]), '0' * 16):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait(10)
    process.stdout.close()
    with build_lock(tmp_path, "0" * 16, lambda: pytest.fail("the lock outlived its process")):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"engines cannot be kept here[\s\S]*--engines DIR, or with DPMRT_ENGINES"),
        build_lock(tmp_path / "file", "0" * 16),
    ):
        pass


def test_a_hash_is_worked_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def counted(path: Path) -> str:
        calls.append(path)
        return hash_file(path)

    monkeypatch.setattr(hashes, "hash_file", counted)
    path = tmp_path / "large"
    path.write_bytes(PLAN)
    assert remembered_hash(path) == remembered_hash(path) == hash_file(path)
    assert calls == [path]
    path.write_bytes(PLAN[::-1])
    assert remembered_hash(path) == hash_file(path)
    assert calls == [path, path]


def test_a_just_written_engine_is_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, _ = written(tmp_path / "engines")
    monkeypatch.setattr(hashes, "hash_file", lambda path: pytest.fail(f"{path} was hashed again"))
    read_engine(tmp_path / "engines", manifest.key)


@pytest.mark.parametrize("memory", [b"", b"[]", b'{"x": 1}', b"{", b"\xff"])
def test_a_damaged_memory_is_none(tmp_path: Path, memory: bytes) -> None:
    path = tmp_path / "large"
    path.write_bytes(PLAN)
    hashes.memo_path().parent.mkdir(parents=True)
    hashes.memo_path().write_bytes(memory)
    assert remembered_hash(path) == hash_file(path)


def test_no_place_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = tmp_path / "large"
    path.write_bytes(PLAN)
    assert remembered_hash(path) == hash_file(path)
