"""Torch beside a bundle: the same samples, and a comparison that does not look good where they differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from dpmrt.engines import shipped_bundle
from dpmrt.errors import BackendError, VerificationError
from dpmrt.export import peer as peer_module
from dpmrt.export.peer import open_peer
from dpmrt.runtime import bench_bundle, cli, load, open_bundle
from dpmrt.runtime.bench.request import make_request
from dpmrt.runtime.bench.timer import Timing

BRIEF = Timing(warm_up=0.0, duration=0.0, iterations=1)
CHECKPOINT = shipped_bundle("digits").parent / "checkpoints" / "digits-unet"


def test_the_peer_takes_the_same_steps_to_the_same_samples() -> None:
    report = bench_bundle(
        "digits", batches=(1, 3), steps=5, timing=BRIEF, engines=["onnxruntime"], fresh=False, against="torch"
    )
    (beside,) = report.peers
    assert (beside.device, beside.precision, beside.compiled) == ("cpu", "fp32", False)
    assert beside.scheduler == open_bundle("digits").scheduler_config["_class_name"]
    assert [(entry.batch, entry.calls) for entry in beside.batches] == [(1, 5), (3, 5)]
    for compared, ours, theirs in zip(beside.comparisons, report.engines[0].batches, beside.batches):
        assert compared.agrees
        assert 0 < compared.max_difference < 1e-4
        assert compared.sample_ratio == theirs.sample.p50 / ours.sample.p50
        assert compared.call_ratio == theirs.call.p50 / ours.call.p50
    assert report.sound
    assert "torch" in report.versions


def test_its_own_loop_is_the_one_that_the_bundle_is_verified_against() -> None:
    from dpmrt.export.certificate.conditions import make_condition
    from dpmrt.export.sources import load_source
    from dpmrt.export.torch_sampler import sample_with_torch

    bundle, source = open_bundle("digits"), load_source(CHECKPOINT)
    condition = make_condition(bundle.manifest, source.interface, batch=2, seed=3, guidance=2.0, sizes={})
    expected = sample_with_torch(source, bundle.scheduler_config, steps=4, batch=2, seed=3, condition=condition)
    request = make_request(bundle, 2, guidance=2.0, seed=3)
    found = open_peer(bundle, source=CHECKPOINT, compiled=False, threads=None).subject(request, steps=4)
    np.testing.assert_allclose(found.result, expected.states[-1], atol=1e-6)


def test_results_that_differ_give_no_ratio_and_exit_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = peer_module.TorchSubject.sample
    monkeypatch.setattr(peer_module.TorchSubject, "sample", lambda self: sample(self) + np.float32(0.01))
    limits = ["--warmUp", "0", "--duration", "0", "--iterations", "1"]
    result = CliRunner().invoke(cli.main, ["bench", "digits", "--against", "torch", "--no-fresh", *limits])
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.strip().startswith("onnxruntime") and "NO" in line]
    assert line.split()[2:4] == ["-", "-"]
    assert "the results differ, so that no ratio is given" in result.stdout


def test_fresh_noise_is_the_same_on_both_sides(tmp_path: Path) -> None:
    """With a scheduler that draws noise at each step, the samples agree only if all of it is the same."""
    from dpmrt.export import export_bundle

    source = tmp_path / "source"
    shutil.copytree(CHECKPOINT, source)
    config = source / "scheduler" / "scheduler_config.json"
    ddpm = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": 1000,
        "clip_sample": False,
        "beta_schedule": "squaredcos_cap_v2",
    }
    config.write_text(json.dumps(ddpm))
    bundle = export_bundle(source, tmp_path / "bundle")
    report = bench_bundle(bundle, steps=5, timing=BRIEF, engines=["onnxruntime"], fresh=False, against="torch")
    assert report.solver.startswith("ddpm")
    assert report.peers[0].comparisons[0].agrees
    with load(bundle) as pipeline:
        assert pipeline.plan(5).stochastic


def test_a_source_that_is_not_there() -> None:
    result = CliRunner().invoke(cli.main, ["bench", "digits", "--against", "torch", "--source", "no-such-folder"])
    assert result.exit_code == 1
    assert "no model folder here" in result.stderr


def test_a_bundle_that_does_not_say_where_it_came_from(tmp_path: Path) -> None:
    shutil.copytree(shipped_bundle("digits"), tmp_path / "elsewhere")
    with pytest.raises(VerificationError, match="is not there") as caught:
        bench_bundle(tmp_path / "elsewhere", timing=BRIEF, against="torch")
    assert "--source" in str(caught.value)


def test_a_network_that_does_not_compile_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(network: Any) -> Any:
        def fail(**inputs: Any) -> Any:
            raise RuntimeError("no C++ compiler\nmany lines")

        return fail

    monkeypatch.setattr(peer_module.torch, "compile", compile_)
    report = bench_bundle(
        "digits", steps=2, timing=BRIEF, engines=["onnxruntime"], fresh=False, against="torch", compiled=True
    )
    (failure,) = report.peers[0].failures
    assert failure.reason.startswith(
        "torch.compile fails on this network here; got RuntimeError: no C++ compiler; fix:"
    )
    assert not report.sound


def test_a_gpu_is_not_made_up() -> None:
    peer = open_peer(open_bundle("digits"), source=None, compiled=False, threads=1)
    if peer_module.torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match="torch sees no GPU"):
        peer.move("cuda")
