"""Training writes a whole folder or nothing, and repeats itself under the same seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("sklearn")

import torch
from click.testing import CliRunner

from dpmrt.errors import BundleError, DpmrtError, NonFiniteError, OptionError, OutputError
from dpmrt.export.cli.train import LOSSES, command
from dpmrt.export.reference.classifiers import load_classifier, load_reader
from dpmrt.export.reference.loop import TrainOptions, fit
from dpmrt.export.reference.objectives import OBJECTIVES
from dpmrt.export.reference.train import train_unet
from dpmrt.export.reference.train_classifiers import train_classifier, train_reader
from dpmrt.export.reference.train_planar import train_planar
from dpmrt.export.reference.unet import load_scheduler, load_unet

QUICK = TrainOptions(steps=3, batch=4, threads=1)
TRAININGS = [train_unet, train_classifier, train_reader, train_planar]


def weights(folder: Path) -> bytes:
    (file,) = folder.rglob("*.safetensors")
    return file.read_bytes()


def test_unet_training_writes_a_pipeline_folder(tmp_path):
    out = train_unet(tmp_path / "model", QUICK)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "scheduler/scheduler_config.json",
        "training.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    with torch.no_grad():
        noise = load_unet(out)(torch.zeros(2, 1, 16, 16), torch.tensor(5), torch.tensor([3, 10])).sample
    assert noise.shape == (2, 1, 16, 16)
    scheduler = load_scheduler(out).config
    assert (scheduler["algorithm_type"], scheduler["solver_order"]) == ("dpmsolver++", 2)
    record = json.loads((out / "training.json").read_text())
    assert (record["steps"], record["seed"], record["null_class"]) == (3, 0, 10)
    assert str(tmp_path) not in "".join(p.read_text() for p in out.rglob("*.json"))


@pytest.mark.parametrize("train", TRAININGS)
def test_same_seed_same_weights(train, tmp_path):
    first, second = train(tmp_path / "a", QUICK), train(tmp_path / "b", QUICK)
    other = train(tmp_path / "c", TrainOptions(steps=3, batch=4, seed=1, threads=1))
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


def test_training_leaves_the_global_seed_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_reader(tmp_path / "reader", QUICK)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("train", TRAININGS)
def test_interrupted_training_leaves_nothing(train, tmp_path):
    def interrupt(now):
        if now.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "new" / "model", QUICK, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_an_older_training_when_the_new_one_is_whole(tmp_path):
    def interrupt(now):
        raise KeyboardInterrupt

    old = weights(train_reader(tmp_path / "model", QUICK))
    other = TrainOptions(steps=3, batch=4, seed=1, threads=1)
    with pytest.raises(KeyboardInterrupt):
        train_reader(tmp_path / "model", other, force=True, on_progress=interrupt)
    assert weights(tmp_path / "model") == old
    assert weights(train_reader(tmp_path / "model", other, force=True)) != old
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_minutes_end_a_run_without_steps():
    line = torch.nn.Linear(1, 1)
    seen = []
    fitted = fit(line, lambda _: line(torch.ones(1)).sum() ** 2, TrainOptions(minutes=0.002), seen.append)
    assert fitted.steps == len(seen) >= 2
    assert seen[-1].fraction == 1.0
    assert seen[0].lr < max(now.lr for now in seen)


def test_a_loss_that_explodes_is_named():
    line = torch.nn.Linear(1, 1)
    with pytest.raises(NonFiniteError, match=r"no longer finite at step 1"):
        fit(line, lambda _: line(torch.ones(1)).sum() * float("nan"), QUICK)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("minutes", 0.0, "more than 0, at most 1440"),
        ("minutes", float("nan"), "more than 0, at most 1440"),
        ("steps", 0, "1 or more"),
        ("batch", 0, "1 to 4096"),
        ("lr", -1.0, "more than 0, at most 1"),
        ("warmup", -1, "0 or more"),
        ("weight_decay", 2.0, "0 to 1"),
        ("ema", 1.0, "0 to less than 1"),
        ("seed", -1, "0 to 2**63 - 1"),
        ("threads", 0, "1 to 1024"),
    ],
)
def test_bad_options_say_what_is_expected(option, value, expected):
    with pytest.raises(OptionError) as caught:
        TrainOptions(**{option: value})
    assert str(caught.value).splitlines()[:3] == [
        f"{option} is out of range",
        f"  got:      {value}",
        f"  expected: {expected}",
    ]
    assert f"pass --{option.replace('_', '-')} " in caught.value.fix


def test_force_never_erases_anything_but_a_training(tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(OutputError) as caught:
        train_unet(tmp_path, QUICK, force=True)
    assert str(caught.value) == (
        "the target holds something else\n"
        f"  got:      {tmp_path}, not empty and without training.json\n"
        "  expected: a new or empty folder, or one with training.json\n"
        "  fix:      choose another target; --force will not erase it"
    )


@pytest.mark.parametrize("record", ["{}", "[]", "{", '{"kind": ["unet"]}', '{"kind": "unet"}'])
def test_force_never_erases_what_no_training_wrote(tmp_path, record):
    (tmp_path / "training.json").write_text(record)
    (tmp_path / "note").write_text("mine")
    with pytest.raises(OutputError, match="the target holds something else"):
        train_unet(tmp_path, QUICK, force=True)
    assert (tmp_path / "note").read_text() == "mine"


@pytest.mark.parametrize("train", TRAININGS)
def test_force_replaces_a_training(train, tmp_path):
    assert train(train(tmp_path / "model", QUICK), QUICK, force=True) == tmp_path / "model"


def test_a_target_that_cannot_be_written_is_refused_before_training(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    for target, what in ((blocker, "the target is not a folder"), (blocker / "below/model", "file is not a folder")):
        with pytest.raises(OutputError, match=what):
            train_unet(target, QUICK, on_progress=lambda _: pytest.fail("trained"))


@pytest.mark.parametrize(("network", "load"), [("reader", load_reader), ("classifier", load_classifier)])
def test_command_trains_and_logs(network, load, tmp_path):
    out = tmp_path / network
    result = CliRunner().invoke(command, [network, "-o", str(out), "--steps", "2", "--batch", "4"])
    assert result.exit_code == 0, result.output
    assert "step 2  loss" in result.output
    assert f"{network} trained; see {out / 'training.json'}" in result.output
    assert load(out).config


def test_command_trains_to_any_loss_and_says_how_to_export(tmp_path):
    assert tuple(OBJECTIVES) == LOSSES
    out = tmp_path / "plane"
    result = CliRunner().invoke(command, f"planar -o {out} --loss sub-vp --steps 2 --batch 4")
    assert result.exit_code == 0, result.output
    assert "next: dpmrt export dpmrt.export.reference.planar:make --spec dpmrt.export.reference.planar:SPEC" in (
        result.output
    )
    record = json.loads((out / "training.json").read_text())
    assert (record["loss"], record["batch"], record["lr"], record["noise"]["schedule"]) == (
        "sub-vp",
        4,
        4e-3,
        "sub-vp",
    )


def test_minutes_replace_the_steps_of_a_planar_network(tmp_path):
    result = CliRunner().invoke(command, ["planar", "-o", str(tmp_path / "plane"), "--minutes", "0.002"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "plane/training.json").read_text())["steps"] < 600


def test_a_classifier_takes_no_other_loss(tmp_path):
    result = CliRunner().invoke(command, ["reader", "-o", str(tmp_path / "x"), "--loss", "vp"])
    assert isinstance(result.exception, OptionError)
    assert str(result.exception).splitlines()[0] == "reader has a loss of its own"
    with pytest.raises(OptionError, match="unknown loss"):
        train_planar(tmp_path / "x", QUICK, loss="vlb")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("loss", "channels", "embedding"),
    [("learned-range", 2, "positional"), ("ve", 1, "fourier"), ("vp", 1, "positional")],
)
def test_a_unet_is_made_for_its_loss(loss, channels, embedding, tmp_path):
    out = train_unet(tmp_path / "model", QUICK, loss=loss)
    config = json.loads((out / "unet/config.json").read_text())
    assert (config["out_channels"], config["time_embedding_type"]) == (channels, embedding)


def test_command_errors_are_ours(tmp_path):
    result = CliRunner().invoke(command, ["unet", "-o", str(tmp_path / "x"), "--class-dropout", "1"])
    assert isinstance(result.exception, DpmrtError)
    assert "class_dropout is out of range" in str(result.exception)
    assert not (tmp_path / "x").exists()


def test_help_has_examples_and_needs_no_torch():
    code = (
        "import sys; from dpmrt.export.cli.train import command\n"
        "try: command(['--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Examples:\n    dpmrt train-reference unet -o digits-unet" in done.stdout
    assert "[default: 0.12]" in done.stdout
    assert done.stdout.rstrip().endswith("False")


def test_a_folder_without_a_network_is_named(tmp_path):
    with pytest.raises(BundleError, match="holds no trained UNet"):
        load_unet(tmp_path)
    with pytest.raises(BundleError, match="holds no scheduler"):
        load_scheduler(tmp_path)
    with pytest.raises(BundleError, match="cannot read"):
        load_reader(tmp_path)
    train_reader(tmp_path / "reader", QUICK)
    with pytest.raises(BundleError, match="is of another kind"):
        load_classifier(tmp_path / "reader")
    (tmp_path / "reader" / "model.safetensors").write_bytes(b"\x00" * 16)
    with pytest.raises(BundleError, match="does not hold a digit-reader"):
        load_reader(tmp_path / "reader")


def test_time_reaches_the_classifier(tmp_path):
    classifier = load_classifier(train_classifier(tmp_path / "c", QUICK))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 1, 16, 16)).astype(np.float32))
    early, late = classifier(x, torch.tensor([10.0, 10.5])), classifier(x, torch.tensor([900.0, 900.0]))
    assert early.shape == (2, 10)
    assert not torch.allclose(early, late)
