"""Guidance in every form while editing: upwards as sampling has it downwards, by a classifier, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from guided_torch import ALPHA_BAR, Guided, classifier_free
from judged_bundles import autograd, write_judged
from tiny_bundles import write_bundle

from dpmrt.engines import read_manifest, record_file, write_manifest
from dpmrt.errors import DpmrtError, OptionError
from dpmrt.runtime import Guidance, Pipeline, image_to_image, inpaint, interpolate, invert, load, reconstruct
from dpmrt.solvers_np import randn

LABELS, STEPS = [0, 2, 1], 7
EACH = [3.0, 0.5, 1.0]
TABLE = np.linspace(-1, 4, STEPS)
IMAGES = np.clip(randn((3, 1, 8, 8), 6), -1, 1)
MASK = np.zeros((8, 8), np.float32)
MASK[:4] = 1


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_judged(tmp_path_factory.mktemp("judged") / "bundle")


@pytest.fixture(scope="module")
def pipeline(judged: Path) -> Iterator[Pipeline]:
    with load(judged) as opened:
        yield opened


def progress(call: int) -> float:
    return call / (STEPS - 1)


#: what is asked, and the scale at a call of sampling and the time at which the network is asked
FORMS: dict[str, tuple[Any, Callable[[int, float], Any]]] = {
    "one a sample": (EACH, lambda k, t: EACH),
    "linear": (Guidance(3.0, schedule="linear"), lambda k, t: 1 + 2 * progress(k)),
    "an interval of progress": (
        Guidance(EACH, interval=(0.0, 0.5)),
        lambda k, t: EACH if progress(k) <= 0.5 else 1.0,
    ),
    "an interval of time": (
        Guidance(3.0, interval=(100, 600), unit="time"),
        lambda k, t: 3.0 if 100 <= t <= 600 else 1.0,
    ),
    "a scale a call": (Guidance(schedule=TABLE), lambda k, t: TABLE[k]),
    "a function of progress": (Guidance(schedule=lambda p: 1 + p**2), lambda k, t: 1 + progress(k) ** 2),
}


def encoded(x: Any, times: Any, eps_of: Guided) -> Any:
    """Return DDIM's noise in torch: each step taken upwards, with the network asked where the step begins."""
    x = torch.as_tensor(np.asarray(x), dtype=torch.float64)
    one = torch.tensor(1.0, dtype=torch.float64)
    for k in reversed(range(len(times))):
        low, high = (times[k + 1] if k + 1 < len(times) else None), times[k]
        a, b = one if low is None else ALPHA_BAR[int(low)], ALPHA_BAR[int(high)]
        eps = eps_of(x, 0.0 if low is None else float(low), k)
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = b.sqrt() * x0 + (1 - b).sqrt() * eps
    return x.numpy()


@pytest.mark.parametrize("form", FORMS)
def test_an_inversion_takes_each_step_with_the_scale_that_sampling_has_there(pipeline: Pipeline, form: str) -> None:
    asked, scale = FORMS[form]
    got = invert(pipeline, IMAGES, steps=STEPS, label=LABELS, guidance=asked)
    times = pipeline.plan(STEPS, "ddim").timesteps
    expected = encoded(IMAGES, times, classifier_free(LABELS, scale))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
def test_iterations_invert_every_form_up_to_rounding(pipeline: Pipeline, form: str) -> None:
    request: dict[str, Any] = {"steps": STEPS, "label": LABELS, "guidance": FORMS[form][0]}
    sample = pipeline.sample(3, seed=4, solver="ddim", **request)
    found = reconstruct(pipeline, np.clip(sample, -2, 2), iterations=14, **request)
    assert found.error.max() < 2e-5


def test_a_rescaled_scale_is_inverted_too(pipeline: Pipeline) -> None:
    request: dict[str, Any] = {
        "steps": 12,
        "label": LABELS,
        "guidance": Guidance(2.0, schedule="cosine", rescale=0.6),
    }
    assert reconstruct(pipeline, IMAGES, iterations=14, **request).error.max() < 2e-5
    errors = [reconstruct(pipeline, IMAGES, **{**request, "steps": n}).error.max() for n in (10, 40, 160)]
    assert errors[2] < 0.5 * errors[1] < 0.25 * errors[0]


def test_a_classifier_guides_an_inversion(pipeline: Pipeline) -> None:
    gradient, scales = autograd(LABELS), torch.tensor([6.0, 0.0, 10.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    free = classifier_free(LABELS, lambda k, t: 1.0)

    def eps_of(x: torch.Tensor, t: float, k: int) -> torch.Tensor:
        # data hold no noise that could be guided
        noise = (1 - ALPHA_BAR[int(t)]).sqrt() if k < STEPS - 1 else 0.0
        return free(x, t, k) - noise * scales * gradient(x, t)

    request: dict[str, Any] = {"steps": STEPS, "label": LABELS, "guidance": 1.0}
    got = invert(pipeline, IMAGES, classifier_scale=[6.0, 0.0, 10.0], **request)
    times = pipeline.plan(STEPS, "ddim").timesteps
    np.testing.assert_allclose(got, encoded(IMAGES, times, eps_of), rtol=1e-4, atol=1e-3)
    assert abs(got - invert(pipeline, IMAGES, **request)).max() > 0.05


def test_editing_and_the_way_between_are_guided_as_sampling_is(pipeline: Pipeline) -> None:
    request: dict[str, Any] = {
        "label": LABELS,
        "guidance": Guidance(EACH, schedule="cosine", interval=(0.2, 1), rescale=0.5),
        "classifier_scale": [6.0, 0.0, 2.0],
    }
    plan = pipeline.plan(STEPS, strength=0.6)
    start = np.float32(plan.start[0]) * IMAGES + np.float32(plan.start[1]) * randn(IMAGES.shape, 1)
    expected = pipeline.sample(3, plan=plan, start=start, **request)
    np.testing.assert_array_equal(image_to_image(pipeline, IMAGES, 0.6, seed=1, steps=STEPS, **request), expected)
    for more in ({}, {"repaint": (2, 2)}):
        painted = inpaint(pipeline, IMAGES, MASK, steps=STEPS, **more, **request)
        np.testing.assert_array_equal(painted[..., 4:, :], IMAGES[..., 4:, :])
        assert abs(painted - inpaint(pipeline, IMAGES, MASK, steps=STEPS, label=LABELS, **more)).max() > 0.01
    way = interpolate(pipeline, (3, 4), frames=3, steps=STEPS, **request)
    ends = [pipeline.sample(1, seed=s, steps=STEPS, **_only(request, k)) for s, k in ((3, 0), (4, 2))]
    np.testing.assert_allclose(way[[0, 2]], np.concatenate(ends), rtol=1e-4, atol=1e-4)


def _only(request: dict[str, Any], k: int) -> dict[str, Any]:
    guidance = Guidance(EACH[k], schedule="cosine", interval=(0.2, 1), rescale=0.5)
    return {"label": LABELS[k], "guidance": guidance, "classifier_scale": request["classifier_scale"][k]}


def test_text_reaches_an_inversion_by_its_short_name(pipeline: Pipeline) -> None:
    with pytest.raises(OptionError, match="the network takes no text"):
        invert(pipeline, IMAGES, iterations=2, encoder_hidden_states=randn((3, 4), 1))


def never(**_: np.ndarray) -> np.ndarray:
    raise AssertionError("the network was called")


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a classifier by iterations": (
        {"classifier_scale": 2.0, "iterations": 3},
        "solves for the network's steps alone, without a classifier's gradient\n",
        "iterations=0 (--iterations 0), or leave out classifier_scale",
    ),
    "the mean": (
        {"classifier_scale": 2.0, "classifier_mode": "mean"},
        "no mean to move where no noise is added",
        "classifier_mode='noise' (--classifier-mode noise), or leave it out",
    ),
    "how and not how strongly": ({"classifier_mode": "noise", "iterations": 3}, "not how strongly", "classifier_sc"),
    "a table of another length": (
        {"guidance": Guidance(schedule=[1.0, 2.0])},
        "another number of network calls than the plan",
        "give one scale for each call",
    ),
    "a table of another length, by iterations": (
        {"guidance": Guidance(schedule=[1.0, 2.0]), "iterations": 2},
        "another number of network calls than the plan",
        "give one scale for each call",
    ),
    "no scale where only sampling asks": (
        {"guidance": Guidance(schedule=lambda t: np.nan if t > 900 else 1.0, unit="time")},
        "the schedule of guidance gave no scale",
        "",
    ),
    "scales": ({"guidance": [1.0, 2.0]}, "one scale of guidance for each sample", "give one for all"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("function", [invert, reconstruct])
def test_what_cannot_guide_an_inversion_is_refused_before_the_network_runs(
    judged: Path, case: str, function: Callable[..., Any]
) -> None:
    request, what, fix = WRONG[case]
    with load(judged, "numpy", function=never) as pipeline:
        with pytest.raises(OptionError, match=what) as caught:
            function(pipeline, IMAGES, **{"steps": STEPS, "label": LABELS, **request})
        assert str(caught.value.fix or "").startswith(fix)


def test_a_scale_a_call_needs_as_many_calls_both_ways(tmp_path: Path) -> None:
    """A network that says nothing of eps at data begins at its first time, which 1000 steps end with."""
    root = write_bundle(tmp_path / "bundle", labels=True)
    name, manifest = "scheduler/scheduler_config.json", read_manifest(root)
    config = json.loads((root / name).read_text())
    (root / name).write_text(json.dumps({**config, "prediction_type": "sample"}))
    files = {**manifest.files, name: record_file(root / name)}
    write_manifest(root, msgspec.structs.replace(manifest, prediction="sample", files=files))
    with load(root, "numpy", function=never) as pipeline:
        with pytest.raises(DpmrtError, match="says nothing of the way up, which has other calls") as caught:
            invert(pipeline, IMAGES, steps=1000, label=LABELS, guidance=Guidance(schedule=np.ones(1000)))
        assert "1000 scales, and 999 network calls upwards" in str(caught.value)
