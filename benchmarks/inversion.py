"""How well an inversion finds a picture again: real digits inverted and sampled again, by solver and steps.

The network is the shipped one, with the digits' labels and without guidance; the error is the root mean square over
pixels in [-1, 1], the mean over digits. `calls` are those of the inversion; sampling again makes `steps` more.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
from common import table

from dpmrt.export.reference.digits import load_digits
from dpmrt.runtime import load, reconstruct

WAYS: dict[str, dict[str, Any]] = {
    "ddim": {"solver": "ddim"},
    "dpmsolver++ (2M)": {"solver": "dpmsolver++"},
    "unipc": {"solver": "unipc"},
    "DDIMInverseScheduler": {"solver": "DDIMInverseScheduler"},
    "DPMSolverMultistepInverseScheduler": {"solver": "DPMSolverMultistepInverseScheduler"},
    "ddim, 4 iterations": {"solver": "ddim", "iterations": 4},
    "ddim, 12 iterations": {"solver": "ddim", "iterations": 12},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=int, default=4)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50, 100])
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    images, labels = load_digits()
    chosen = np.random.default_rng(0).permutation(len(images))[: options.digits]
    rows = []
    with load("digits") as pipeline:
        for name, how in WAYS.items():
            errors = []
            for steps in options.steps:
                asked = {"steps": steps, "label": labels[chosen].tolist(), "guidance": 1}
                errors.append(reconstruct(pipeline, images[chosen], **asked, **how).error.mean())
            rows.append([name, *(f"{error:.4f}" for error in errors)])
    table(
        f"{options.digits} digits inverted and sampled again: root mean square error",
        ["", *(f"{steps} steps" for steps in options.steps)],
        rows,
    )


if __name__ == "__main__":
    main()
