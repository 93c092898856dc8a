"""`dpmrt bench`: real engines, a peer that is made of a bundle, and requests that cannot be honoured."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_bundles import Make, reference
from tiny_conditioned import write_conditioned

from dpmrt.engines import Axis
from dpmrt.errors import BackendError, MissingExtraError, NonFiniteError, OptionError
from dpmrt.runtime import backends, bench_bundle, cli, open_bundle
from dpmrt.runtime.backends import open_backend
from dpmrt.runtime.bench import peers
from dpmrt.runtime.bench.first import first_sample
from dpmrt.runtime.bench.request import make_request
from dpmrt.runtime.bench.schema import BenchReport
from dpmrt.runtime.bench.subject import Overheard, PipelineSubject, measure_subject
from dpmrt.runtime.bench.timer import Timing
from dpmrt.runtime.pipeline import Pipeline

BRIEF = Timing(warm_up=0.0, duration=0.0, iterations=2)
FLAGS = ["--warmUp", "0", "--duration", "0", "--iterations", "2"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def refused(result: Result, *texts: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    for text in texts:
        assert text in result.stderr


class SlowNetwork:
    """A network that moves a clock: what is measured is then known beforehand."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds, self.calls = 0.0, seconds, 0

    def __call__(self, sample: np.ndarray, timestep: np.ndarray) -> np.ndarray:
        self.calls += 1
        self.now += self.seconds
        return reference(sample, timestep)

    def clock(self) -> float:
        return self.now


def test_the_loop_costs_nothing_where_only_the_network_takes_time(plain: Path) -> None:
    opened, network = open_bundle(plain), SlowNetwork(0.25)
    overheard = Overheard(open_backend("numpy", plain, opened.manifest.unet, function=network))
    with Pipeline(opened, overheard.backend) as pipeline:
        request = make_request(opened, 2)
        subject = PipelineSubject(pipeline, overheard, request, pipeline.plan(6))
        found = measure_subject(subject, request, BRIEF, tell=lambda phase, part: None, clock=network.clock)
        np.testing.assert_array_equal(subject.result, pipeline.sample(2, steps=6))
    assert (found.batch, found.rows, found.calls) == (2, 2, 6)
    assert (found.call.p50, found.sample.p50, found.bare.p50) == (0.25, 1.5, 1.5)
    assert (found.overhead.per_call, found.overhead.ratio) == (0.0, 1.0)
    assert found.samples_per_second == 2 / 1.5


def test_the_loop_is_what_a_sample_takes_beyond_its_calls(plain: Path) -> None:
    opened, network = open_bundle(plain), SlowNetwork(0.25)
    overheard = Overheard(open_backend("numpy", plain, opened.manifest.unet, function=network))
    with Pipeline(opened, overheard.backend) as pipeline:
        request = make_request(opened, 1)
        plan = pipeline.plan(4)
        subject = PipelineSubject(pipeline, overheard, request, plan)
        drawn = subject.sample

        def slower() -> Any:
            network.now += 0.5
            return drawn()

        subject.sample = slower  # type: ignore[method-assign]
        found = measure_subject(subject, request, BRIEF, tell=lambda phase, part: None, clock=network.clock)
    assert (found.overhead.per_call, found.overhead.ratio) == (0.5 / 4, 1.5)


def test_a_stream_is_waited_for(plain: Path) -> None:
    opened, waited = open_bundle(plain), []

    class Stream:
        def synchronize(self) -> None:
            waited.append(True)

    overheard = Overheard(open_backend("numpy", plain, opened.manifest.unet, function=reference))
    assert overheard.device == "cpu"
    with Pipeline(opened, overheard.backend) as pipeline:
        request = make_request(opened, 1)
        subject = PipelineSubject(pipeline, overheard, request, pipeline.plan(3))
        overheard.backend.place = SimpleNamespace(stream=Stream())  # type: ignore[attr-defined]
        measure_subject(subject, request, BRIEF, tell=lambda phase, part: None)
    assert overheard.device == "cuda"
    # Three runs of single calls, three pairs, each with the clock read at both ends.
    assert len(waited) == 2 * (3 + 2 * 3)


def test_guidance_doubles_the_rows_and_the_bare_calls_are_the_pipelines_own(labelled: Path) -> None:
    report = bench_bundle(labelled, batches=(1, 3), steps=4, timing=BRIEF, fresh=False)
    (result,) = report.engines
    assert [(entry.batch, entry.rows, entry.calls) for entry in result.batches] == [(1, 2, 4), (3, 6, 4)]
    assert (report.guidance, report.steps, report.shape, report.sound) == (2.0, 4, (1, 8, 8), True)
    for entry in result.batches:
        assert 0 < entry.call.min <= entry.bare.min < entry.sample.max
        assert entry.samples_per_second == pytest.approx(entry.batch / entry.sample.mean)
    reasons = {entry.engine: entry.reason for entry in report.unable}
    assert "no graph that emulates" in reasons["emulated"]
    assert all(reasons.values())


def test_times_are_in_seconds(plain: Path) -> None:
    """By a real clock: never less than the network sleeps, and on a busy machine not ten times more each time."""
    opened, pause = open_bundle(plain), 0.004

    def sleeping(sample: np.ndarray, timestep: np.ndarray) -> np.ndarray:
        time.sleep(pause)
        return reference(sample, timestep)

    overheard = Overheard(open_backend("numpy", plain, opened.manifest.unet, function=sleeping))
    with Pipeline(opened, overheard.backend) as pipeline:
        request = make_request(opened, 1)
        subject = PipelineSubject(pipeline, overheard, request, pipeline.plan(5))
        found = measure_subject(subject, request, Timing(0.0, 0.0, 5), tell=lambda phase, part: None)
    assert pause <= found.call.min < 10 * pause
    assert 5 * pause <= found.bare.min < 50 * pause
    assert 5 * pause <= found.sample.min < 50 * pause


def test_a_fresh_process_says_what_its_first_sample_took(labelled: Path) -> None:
    report = bench_bundle(labelled, steps=3, timing=BRIEF, engines=["onnxruntime"])
    first = report.engines[0].first
    assert first is not None
    assert first.runs == 3
    assert 0 < first.sample < first.load + first.sample < first.from_start
    # NumPy and ONNX Runtime alone take tens of megabytes, torch would take hundreds.
    assert first.peak_bytes is not None
    assert 30e6 < first.peak_bytes < 300e6
    assert first.device_bytes is None


def test_a_fresh_process_that_fails_is_an_error(plain: Path) -> None:
    task = {"bundle": str(plain), "engine": "onnxruntime", "engine_options": {}, "steps": 3, "solver": "no such",
            "scheduler": False, "batch": 1, "shape": (1, 8, 8), "guidance": None, "seed": 0}  # fmt: skip
    with pytest.raises(BackendError, match="a process of its own could not load") as caught:
        first_sample(task)
    assert "exit code 1" in str(caught.value)


def test_conditions_are_made_up_alike_in_every_process(tmp_path: Path) -> None:
    bundle = open_bundle(
        write_conditioned(
            tmp_path / "b",
            sample=("batch", 4, "height", "width"),
            conditions={"encoder_hidden_states": ("float32", ("batch", "words", 5)), "rate": ("float32", ("batch",))},
            axes={"height": Axis(opt=8), "width": Axis(opt=8), "words": Axis(opt=7)},
        )
    )
    one, two = (make_request(bundle, 2, guidance=3.0, seed=4).arguments for _ in range(2))
    assert one["conditions"]["encoder_hidden_states"].shape == (2, 7, 5)
    np.testing.assert_array_equal(one["negative"]["rate"], two["negative"]["rate"])
    assert (one["negative"]["rate"] != one["conditions"]["rate"]).all()
    assert make_request(bundle, 1).arguments["negative"] is None
    assert make_request(bundle, 1, shape=(4, 16, 8)).shape == (4, 16, 8)


def test_the_table_and_the_file(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    result = run("bench", labelled, "--batch", "1,2", "--steps", 3, "--no-fresh", "--json", out, *FLAGS)
    assert result.exit_code == 0, result.output
    for text in ("one network call, ms", "whole sample, ms", "samples/s", "cannot run this bundle here", "numpy "):
        assert text in result.stdout
    assert result.stdout.endswith(f"wrote {out}\n")
    report = msgspec.json.decode(out.read_bytes(), type=BenchReport)
    assert (report.format, report.version, report.options["iterations"]) == ("dpmrt-bench", 1, 2)
    assert report.machine.cores >= 1
    assert list(tmp_path.iterdir()) == [out]


def test_progress_names_engine_batch_and_phase(plain: Path) -> None:
    result = run("bench", plain, "--no-fresh", "--progress", *FLAGS)
    assert "onnxruntime, batch 1: whole sample" in result.stderr


WRONG: dict[str, tuple[list[object], list[str]]] = {
    "engine": (["--engine", "nope"], ["unknown engine", "'nope'", "onnxruntime"]),
    "engine that cannot": (["--engine", "emulated"], ["no graph that emulates", "engine='onnxruntime'"]),
    "batch 0": (["--batch", "0"], ["batch is out of range", "--batch 1,2,4"]),
    "batch text": (["--batch", "1,x"], ["--batch is no list of batch sizes", "'1,x'"]),
    "duration": (["--duration", "-1"], ["duration is out of range", "-1.0"]),
    "warm-up": (["--warmUp", "-5"], ["warmUp is out of range", "in milliseconds"]),
    "iterations": (["--iterations", "0"], ["iterations is out of range"]),
    "threads": (["--threads", "0", "--engine", "onnxruntime"], ["threads is out of range"]),
    "steps": (["--steps", "0"], ["steps is out of range"]),
    "shape": (["--shape", "1,9,9"], ["the sample does not fit the network"]),
    "solver": (["--solver", "nope"], ["unknown solver"]),
    "guidance": (["--guidance", "2"], ["the network was not trained for guidance"]),
    "compile": (["--compile"], ["--compile is for the peer", "--against torch --compile"]),
    "source": (["--source", "x"], ["--source is for the peer"]),
    "peer": (["--against", "nope"], ["unknown peer", "torch"]),
    "peer's solver": (["--against", "torch", "--solver", "ddim"], ["follows the bundle's own scheduler"]),
    "json": (["--json", "/no/such/folder/b.json"], ["the folder does not exist", "/no/such/folder/b.json"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_fail_before_anything_is_measured(plain: Path, name: str) -> None:
    arguments, texts = WRONG[name]
    started = time.perf_counter()
    refused(run("bench", plain, *arguments), *texts)
    assert time.perf_counter() - started < 3


def test_a_bundle_that_is_not_there() -> None:
    refused(run("bench", "no-such-bundle"), "no bundle here", "digits")


def test_a_batch_that_the_network_does_not_take(make_bundle: Make) -> None:
    refused(run("bench", make_bundle(batch=2), "--batch", "2,3"), "exported for one batch size", "batch 3")


def test_a_failure_while_measuring_is_told_and_the_rest_is_measured(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Pipeline.sample

    def broken(self: Pipeline, /, batch: int = 1, **options: Any) -> Any:
        if batch == 2:
            raise NonFiniteError("the network returned NaN or infinity", got="call 1")
        return sample(self, batch, **options)

    monkeypatch.setattr(Pipeline, "sample", broken)
    result = run("bench", plain, "--batch", "1,2,3", "--no-fresh", *FLAGS)
    assert result.exit_code == 1
    assert "onnxruntime, batch 2: the network returned NaN or infinity; got call 1" in result.stdout
    assert "Traceback" not in result.output


def test_no_engine_at_all(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.BACKENDS, "onnxruntime", _absent)
    with pytest.raises(BackendError, match="no engine here can run the bundle") as caught:
        bench_bundle(plain, timing=BRIEF)
    assert "onnxruntime: not here; fix: pip install it" in str(caught.value)


def _absent(root: Path, network: Any, *, threads: int | None = None) -> Any:
    raise MissingExtraError("not here", fix="pip install it")


def test_a_peer_whose_library_is_missing_says_what_to_install(plain: Path) -> None:
    code = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from dpmrt.runtime.cli import main\n"
        f"main(['bench', {str(plain)!r}, '--against', 'torch'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "timing the bundle beside torch needs packages that are not installed" in done.stderr
    assert "pip install 'dpmrt[export]'" in done.stderr


def test_measuring_loads_no_torch(plain: Path) -> None:
    code = (
        "import sys\nfrom dpmrt.runtime import bench_bundle\nfrom dpmrt.runtime.bench.timer import Timing\n"
        f"bench_bundle({str(plain)!r}, timing=Timing(0.0, 0.0, 1), fresh=False)\n"
        "print('torch' in sys.modules, 'onnx' in sys.modules, 'rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False False False"


def test_ctrl_c_says_so_and_writes_nothing(tmp_path: Path) -> None:
    out, (ours, theirs) = tmp_path / "b.json", pty.openpty()
    program = str(Path(sys.executable).with_name("dpmrt"))
    command = [program, "bench", "digits", "--duration", "60", "--json", str(out)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        # A progress bar is drawn as it goes on a terminal only.
        seen = _read_until(ours, b"network call")
        process.send_signal(signal.SIGINT)
        seen += _read_until(ours, None)
        process.wait(timeout=30)
    os.close(ours)
    assert process.returncode == 130
    assert b"cancelled while measuring onnxruntime, batch 1: network call; no report was written" in seen
    assert b"Traceback" not in seen
    assert not out.exists()


def _read_until(terminal: int, text: bytes | None, seconds: float = 30.0) -> bytes:
    """Read what a terminal shows until a text comes, or until there is no more."""
    seen, end = b"", time.monotonic() + seconds
    while (text is None or text not in seen) and time.monotonic() < end:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other end was closed
            break
        if not part:
            break
        seen += part
    return seen


def test_peers_are_found_among_the_entry_points() -> None:
    from importlib.metadata import entry_points

    assert [entry.value for entry in entry_points(group=peers.GROUP)] == ["dpmrt.export.peer:open_peer"]


def test_python_refuses_an_empty_list_of_batches(plain: Path) -> None:
    with pytest.raises(OptionError, match="there is no batch to measure"):
        bench_bundle(plain, batches=())


def test_the_file_is_plain_json(plain: Path, tmp_path: Path) -> None:
    assert run("bench", plain, "--no-fresh", "--json", tmp_path / "b.json", *FLAGS).exit_code == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["engines"][0]["batches"][0]["call"].keys() == {"runs", "mean", "p50", "p95", "p99", "min", "max"}
