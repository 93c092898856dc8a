"""Set-up of the tests of solvers_np: how much hypothesis draws, diffusers as a peer, and the comparison with it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import pytest
from diffusers_peer import Diffusers
from hypothesis import settings
from trajectories import assert_parity

settings.register_profile("dpmrt", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("thorough", deadline=None, max_examples=3000)
settings.load_profile(os.environ.get("DPMRT_HYPOTHESIS", "dpmrt"))


@pytest.fixture(scope="session")
def peer() -> Diffusers:
    return Diffusers()


@pytest.fixture(scope="session")
def check(peer: Diffusers) -> Callable[..., None]:
    """Return check(config, steps), which holds our plan against diffusers' scheduler."""
    return functools.partial(assert_parity, peer)
