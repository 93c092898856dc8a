"""Align Your Steps: the tables that NVIDIA published with the paper (Sabour et al. 2024, arXiv 2404.14507).

Each holds the eleven ends of ten steps. Those of the two discrete models are their noise levels at whole training
times; that of Stable Video Diffusion is in EDM's sigmas.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from dpmrt.solvers_np.levels import Floats
from dpmrt.solvers_np.options import one_of, whole

AYS_TIMES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "sd15": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
        "sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
    }
)
# fmt: off
AYS_SIGMAS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "sd15": (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
                 0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
        "sdxl": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
                 0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
        "svd": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
    }
)
# fmt: on


def ays_sigmas(model: str, steps: int) -> Floats:
    """Return the steps + 1 ends of `steps` steps: the table, or its logarithm interpolated to another number.

    >>> ays_sigmas("svd", 5).tolist()
    [700.0, 15.886, 4.248, 0.981, 0.173, 0.002]
    """
    one_of("model", model, AYS_SIGMAS)
    table = np.array(AYS_SIGMAS[model])
    at = np.linspace(0, len(table) - 1, whole("steps", steps, 1) + 1)
    between = np.exp(np.interp(at, np.arange(len(table)), np.log(table)))
    return np.where(at == np.rint(at), table[np.rint(at).astype(np.int64)], between)
