"""Guidance within the graph is the guidance that the runtime computes outside of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxscript import ir
from tiny_family import tiny
from tiny_networks import save_scheduler

from dpmrt.errors import ExportError
from dpmrt.export import export_bundle
from dpmrt.export.folding import fold_guidance
from dpmrt.export.onnx_files import session_of
from dpmrt.export.sources import source_of_model
from dpmrt.export.tracing import trace
from dpmrt.runtime import load

NULL = 10
SCALES = torch.tensor([0.0, 1.0, 7.5])


def by_hand(name: str, tensors: dict[str, torch.Tensor], learned: int | None) -> torch.Tensor:
    """Two calls of the network, and Ho and Salimans' combination of them."""
    source = source_of_model(tiny(name))
    given = {role: tensor for role, tensor in tensors.items() if source.interface.input(role)}
    away = {
        **given,
        **{role.removeprefix("negative_"): tensor for role, tensor in tensors.items() if "negative_" in role},
    }
    if "class_labels" in given:
        away["class_labels"] = torch.full_like(given["class_labels"], NULL)
    wanted, null = source.predict(given), source.predict(away)
    guided = null + SCALES.reshape(3, 1, 1, 1) * (wanted - null)
    if learned:
        # The variance is not guided.
        guided[:, learned:] = wanted[:, learned:]
    return guided


CASES = {
    "labels, learned variance": (NULL, 2, []),
    "text": (None, None, ["negative_encoder_hidden_states"]),
    "sdxl": (None, None, ["negative_encoder_hidden_states", "negative_text_embeds"]),
    "noise level, learned variance": (None, 4, ["negative_encoder_hidden_states"]),
    "class embeds": (None, None, ["negative_encoder_hidden_states", "negative_class_embeds"]),
}


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)
def test_folded_guidance(name: str, case: tuple[int | None, int | None, list[str]]) -> None:
    null, learned, negatives = case
    source = source_of_model(tiny(name))
    interface, forward = fold_guidance(source.interface, null)
    roles = [entry.role for entry in interface.inputs]
    assert roles == [*(entry.role for entry in source.interface.inputs), *negatives, "guidance_scale"]
    tensors = {**interface.examples(batch=3, seed=2), "guidance_scale": SCALES}
    with torch.inference_mode():
        got, expected = forward(source.model, tensors), by_hand(name, tensors, learned)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["labels, learned variance", "sdxl"])
def test_the_graph_of_folded_guidance(name: str, tmp_path: Path) -> None:
    null, learned, _ = CASES[name]
    source = source_of_model(tiny(name))
    interface, forward = fold_guidance(source.interface, null)
    graph = trace(source.skeleton, interface, source.weights, forward=forward)
    assert not {node.op_type for node in graph.graph.all_nodes()} & {"SplitToSequence", "SequenceAt"}
    ir.save(graph, tmp_path / "model.onnx")
    tensors = {**interface.examples(batch=3, seed=2), "guidance_scale": SCALES}
    with torch.inference_mode():
        expected = by_hand(name, tensors, learned).numpy()
    (got,) = session_of(tmp_path / "model.onnx").run(None, {role: t.numpy() for role, t in tensors.items()})
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_nothing_to_move_away_from() -> None:
    text = r"nothing that guidance could move away from(.|\n)*sample, timestep(.|\n)*--fold-guidance"
    with pytest.raises(ExportError, match=text):
        fold_guidance(source_of_model(tiny("pictures")).interface, None)
    with pytest.raises(ExportError, match="nothing that guidance"):
        fold_guidance(source_of_model(tiny("labels, learned variance")).interface, None)


def sampled(bundle: Path, **options: Any) -> np.ndarray:
    with load(bundle) as pipeline:
        return pipeline.sample(2, seed=3, steps=8, **options)


@pytest.mark.slow
def test_text_folded_and_not_give_the_same_samples(
    conditional: Path, traced_conditional: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded = export_bundle(conditional, tmp_path / "folded", fold=True)
    monkeypatch.setattr("dpmrt.export.network.trace", lambda *given, **options: traced_conditional.clone())
    plain = export_bundle(conditional, tmp_path / "plain")
    random = np.random.default_rng(0)
    text, other = (random.standard_normal((2, 6, 12)).astype(np.float32) for _ in range(2))
    options = {
        "conditions": {"encoder_hidden_states": text},
        "negative": {"encoder_hidden_states": other},
        "guidance": 5.0,
    }
    expected = sampled(plain, **options)
    np.testing.assert_allclose(sampled(folded, **options), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_labels_folded_and_not_give_the_same_samples(
    pristine: Path, traced: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded = export_bundle(pristine, tmp_path / "folded", fold=True)
    monkeypatch.setattr("dpmrt.export.network.trace", lambda *given, **options: traced.clone())
    plain = export_bundle(pristine, tmp_path / "plain")
    expected = sampled(plain, label=[3, 7], guidance=4.0)
    got = sampled(folded, label=[3, 7], guidance=4.0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_folding_in_memory_needs_a_null_class(tmp_path: Path) -> None:
    scheduler = save_scheduler(tmp_path)
    with pytest.raises(ExportError, match="nothing that guidance could move away from"):
        export_bundle(tiny("labels, learned variance"), tmp_path / "bundle", scheduler=scheduler, fold=True)
