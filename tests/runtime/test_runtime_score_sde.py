"""Predictor-corrector sampling with the digits, through ONNX Runtime."""

from __future__ import annotations

import numpy as np

from dpmrt.runtime import load


def test_digits_are_corrected_with_guidance_and_are_what_the_plan_says() -> None:
    with load("digits") as pipeline:
        options = {"solver": "predictor-corrector", "predictor": "ancestral", "snr": 0.1}
        plan = pipeline.plan(12, **options)
        samples = pipeline.sample(2, steps=12, seed=4, label=[3, 7], guidance=2.0, **options)
        followed = pipeline.sample(2, plan=plan, seed=4, label=[3, 7], guidance=2.0)
        alone = pipeline.sample(2, steps=12, seed=4, label=[3, 7], guidance=2.0, **{**options, "corrector": "none"})
    assert plan.calls == 24
    np.testing.assert_array_equal(samples, followed)
    assert np.isfinite(samples).all()
    assert samples.std() > 0.2
    assert np.abs(samples - alone).max() > 0.1


def test_with_seeds_of_its_own_a_sample_measured_alone_is_the_same_in_any_batch() -> None:
    with load("digits") as pipeline:
        for per_sample in (True, False):
            options = {"solver": "predictor-corrector", "steps": 6, "per_sample": per_sample}
            both = pipeline.sample(2, seed=[5, 6], label=[1, 8], **options)
            one = pipeline.sample(1, seed=[6], label=[8], **options)
            assert np.allclose(one, both[1:], rtol=0, atol=1e-3) is per_sample
