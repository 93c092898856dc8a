"""NumPy's own normal numbers as a source."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpmrt.solvers_np.noise.seeds import check_seed


class NumpyNoise:
    """NumPy's PCG64 stream in float32."""

    def __init__(self, seed: int = 0) -> None:
        self._generator = np.random.Generator(np.random.PCG64(check_seed(seed)))

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the next draw, float32."""
        return self._generator.standard_normal(shape, dtype=np.float32)
