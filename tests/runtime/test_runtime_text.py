"""Networks that are conditioned on text: the arrays are the caller's, as encoders are outside a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import SCHEDULER

from dpmrt.engines import Manifest, Network, TensorSpec
from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime import OpenBundle, Pipeline
from dpmrt.runtime.backends import FunctionBackend, Tensor
from dpmrt.solvers_np import randn, run_plan

PROMPT = np.linspace(-1, 1, 2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
NEGATIVE = np.zeros((1, 5, 3), np.float32)


def network(sample: Any, timestep: Any, encoder_hidden_states: Any) -> np.ndarray:
    shift = encoder_hidden_states.mean(axis=(1, 2)).reshape(-1, 1, 1, 1)
    return np.asarray(0.5 * sample + shift, np.float32)


@pytest.fixture
def pipeline() -> Pipeline:
    inputs = (
        TensorSpec("sample", "sample", "float32", ("batch", 4, "height", "width")),
        TensorSpec("timestep", "timestep", "float32", ("batch",)),
        TensorSpec("encoder_hidden_states", "encoder_hidden_states", "float32", ("batch", "tokens", 3)),
    )
    outputs = (TensorSpec("out_sample", "out_sample", "float32", ("batch", 4, "height", "width")),)
    manifest = Manifest(
        "dpmrt-bundle", 1, "text", Network("unet/model.onnx", inputs, outputs), "scheduler", "epsilon", {}
    )
    bundle = OpenBundle(Path(), manifest, SCHEDULER, {"in_channels": 4, "sample_size": [6, 8]})
    tensors = [[Tensor(spec.name, spec.dtype, spec.shape) for spec in specs] for specs in (inputs, outputs)]
    return Pipeline(bundle, FunctionBackend(network, *tensors))


def test_text_conditions_each_sample(pipeline: Pipeline) -> None:
    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        return network(x, t, PROMPT)

    expected = run_plan(pipeline.plan(5), model, randn((2, 4, 6, 8), 0))
    np.testing.assert_allclose(pipeline.sample(2, steps=5, encoder_hidden_states=PROMPT), expected, rtol=1e-5)


def test_text_is_guided_away_from_the_negative(pipeline: Pipeline) -> None:
    def model(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        null = network(x, t, np.repeat(NEGATIVE, 2, axis=0))
        return null + 7.5 * (network(x, t, PROMPT) - null)

    expected = run_plan(pipeline.plan(5), model, randn((2, 4, 6, 8), 0))
    got = pipeline.sample(2, steps=5, encoder_hidden_states=PROMPT, negative_hidden_states=NEGATIVE, guidance=7.5)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("request_", "kind", "what"),
    [
        ({}, OptionError, "whose encoding is missing"),
        ({"encoder_hidden_states": PROMPT[0]}, ArrayError, "encoder_hidden_states does not fit"),
        ({"encoder_hidden_states": PROMPT[..., :2]}, ArrayError, "encoder_hidden_states does not fit"),
        ({"encoder_hidden_states": PROMPT.astype(int)}, ArrayError, "encoder_hidden_states does not fit"),
        ({"encoder_hidden_states": PROMPT * np.nan}, ArrayError, "holds NaN"),
        ({"encoder_hidden_states": PROMPT, "negative_hidden_states": NEGATIVE}, OptionError, "no scale of guidance"),
        ({"encoder_hidden_states": PROMPT, "guidance": 2.0}, OptionError, "not trained for guidance"),
        (
            {"encoder_hidden_states": PROMPT, "negative_hidden_states": NEGATIVE[:, :4], "guidance": 2.0},
            ArrayError,
            "the negative encoder_hidden_states and the condition encoder_hidden_states have different sizes",
        ),
    ],
)
def test_wrong_text_is_explained(pipeline: Pipeline, request_: dict[str, Any], kind: Any, what: str) -> None:
    with pytest.raises(kind, match=what):
        pipeline.sample(2, **request_)
