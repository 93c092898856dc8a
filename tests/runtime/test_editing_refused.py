"""Editing requests that cannot be honoured: a typed error each, before the network runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpmrt.errors import ArrayError, DpmrtError, OptionError, PlanError
from dpmrt.runtime import Pipeline, Recorder, image_to_image, inpaint, interpolate, invert, load
from dpmrt.solvers_np import randn

MASK = np.zeros((8, 8), np.float32)
MASK[:4] = 1
IMAGE = np.clip(randn((2, 1, 8, 8), seed=9), -1, 1)


class _NoNetwork:
    """Fails a test whose request reaches the network."""

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        def run(*_: Any, **__: Any) -> None:
            raise AssertionError("the network ran")

        monkeypatch.setattr(pipeline._held, "bind", run)
        monkeypatch.setattr(pipeline, "model", run)


BAD: list[tuple[Callable[[Pipeline], Any], type[DpmrtError], str]] = [
    (lambda p: image_to_image(p, IMAGE[0]), ArrayError, r"wrong shape\n.*\(1, 8, 8\)\n(?s:.*)images\[None\]"),
    (lambda p: image_to_image(p, IMAGE[:, :, :7]), ArrayError, r"image has the wrong shape\n.*7, 8\)\n.*\(1, 8, 8\)"),
    (lambda p: image_to_image(p, IMAGE[:0]), ArrayError, "wrong shape"),
    (lambda p: image_to_image(p, (127 * IMAGE).astype(np.uint8)), ArrayError, "wrong dtype"),
    (
        lambda p: image_to_image(p, 255 * IMAGE),
        ArrayError,
        r"out of range\n.*\n.*-1 to 1(?s:.*)pixels / 255",
    ),
    (lambda p: image_to_image(p, np.nan * IMAGE), ArrayError, "image holds NaN"),
    (lambda p: image_to_image(p, IMAGE, 0), OptionError, "strength is out of range"),
    (lambda p: image_to_image(p, IMAGE, 1.01), OptionError, "strength is out of range"),
    (lambda p: image_to_image(p, IMAGE, np.nan), OptionError, "strength is out of range"),
    (lambda p: image_to_image(p, IMAGE, 0.01, steps=5), OptionError, r"strength leaves no step\n.*0.01 of 5 steps"),
    (lambda p: image_to_image(p, IMAGE, batch=3), ArrayError, r"batch and images disagree\n.*batch=3, 2 images"),
    (lambda p: image_to_image(p, IMAGE, x_T=IMAGE[:1]), ArrayError, r"initial noise \(x_T\) does not fit"),
    (lambda p: image_to_image(p, IMAGE, x_T=IMAGE * np.inf), ArrayError, r"\(x_T\) holds NaN"),
    (lambda p: image_to_image(p, IMAGE, plan=p.plan()), OptionError, r"takes no such argument\n.*plan"),
    (lambda p: image_to_image(p, IMAGE, nonsense=3), OptionError, "no key of this name"),
    (lambda p: image_to_image(p, IMAGE, noise=randn((9, *IMAGE.shape), 1)), OptionError, "plan adds no noise"),
    (lambda p: image_to_image(p, IMAGE, label=1), OptionError, "takes no class labels"),
    (lambda p: inpaint(p, IMAGE, MASK[:3]), ArrayError, r"mask has the wrong shape\n.*\(3, 8\)\n.*\(8, 8\)"),
    (lambda p: inpaint(p, IMAGE, np.ones((3, 1, 8, 8))), ArrayError, "mask has the wrong shape"),
    (lambda p: inpaint(p, IMAGE, 255 * MASK), ArrayError, r"mask is out of range\n.*0 to 255\n(?s:.*)mask > 127"),
    (lambda p: inpaint(p, IMAGE, MASK - 0.5), ArrayError, "mask is out of range"),
    (lambda p: inpaint(p, IMAGE, MASK * np.nan), ArrayError, "mask is out of range"),
    (lambda p: inpaint(p, IMAGE, 0 * MASK), ArrayError, r"mask is empty(?s:.*)1 - mask"),
    (lambda p: inpaint(p, IMAGE, np.stack([MASK, 0 * MASK])[:, None]), ArrayError, r"0 everywhere in sample 1"),
    (lambda p: inpaint(p, IMAGE, MASK > -1), ArrayError, "mask keeps nothing"),
    (lambda p: inpaint(p, IMAGE, np.full((8, 8), "x")), ArrayError, "mask has the wrong dtype"),
    (lambda p: inpaint(p, IMAGE, MASK, repaint=5), OptionError, r"repaint is no pair"),  # type: ignore[arg-type]
    (lambda p: inpaint(p, IMAGE, MASK, steps=5, repaint=(9, 2)), OptionError, "jump is as long as the run"),
    (lambda p: inpaint(p, IMAGE, MASK, repaint=(1, 2), solver="unipc"), PlanError, "keeps nothing from earlier"),
    (lambda p: inpaint(p, IMAGE, MASK, known_noise="none"), OptionError, "known_noise has a value"),
    (lambda p: invert(p, IMAGE, solver="ddpm"), OptionError, "a solver that adds noise cannot invert"),
    (lambda p: invert(p, IMAGE, solver="ddim", eta=1.0), OptionError, "a solver that adds noise cannot invert"),
    (lambda p: invert(p, IMAGE, iterations=-1), OptionError, "iterations is out of range"),
    (lambda p: invert(p, IMAGE, iterations=3, solver="heun"), PlanError, "by iterations needs a solver"),
    (lambda p: invert(p, IMAGE, iterations=3, clip=1.0), OptionError, "linear in one network call"),
    (lambda p: invert(p, IMAGE, iterations=3, hooks=[Recorder("epsilon")]), OptionError, "takes no hooks"),
    (lambda p: interpolate(p, (1,)), OptionError, "nothing to interpolate between"),
    (lambda p: interpolate(p, 5), OptionError, "nothing to interpolate between"),  # type: ignore[arg-type]
    (lambda p: interpolate(p, (1, 2), 1), OptionError, "frames is out of range"),
    (lambda p: interpolate(p, (1, 2), mode="slurp"), OptionError, r"unknown mode(?s:.*)did you mean 'slerp'"),
    (lambda p: interpolate(p, (IMAGE[0], IMAGE[0, :, :4])), ArrayError, "noise 1 is no noise of one sample"),
    (lambda p: interpolate(p, (1, 2), hooks=[3]), OptionError, "a hook is none"),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_a_bad_request_is_refused_before_the_network_runs(
    plain: Path, monkeypatch: pytest.MonkeyPatch, case: int
) -> None:
    call, kind, text = BAD[case]
    with load(plain) as pipeline:
        _NoNetwork(pipeline, monkeypatch)
        with pytest.raises(kind, match=text):
            call(pipeline)
