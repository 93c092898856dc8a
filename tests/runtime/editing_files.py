"""Pictures written for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dpmrt.runtime.images import write_png


def write_pixels(path: Path, pixels: Any) -> Path:
    with path.open("wb") as stream:
        write_png(stream, np.asarray(pixels, np.uint8))
    return path
