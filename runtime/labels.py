"""Class labels that a caller asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.errors import OptionError
from dpmrt.runtime.request import Labels, check_array, check_whole


def check_labels(
    batch: int, label: Labels, *, classes: int | None = None, null_label: int | None = None
) -> NDArray[np.int64]:
    """Return one label for each sample; without a label it is the null label, where there is one."""
    if label is None:
        if null_label is None:
            raise OptionError(
                "the network needs a class label",
                got="label=None",
                expected=f"0 to {classes - 1}" if classes else "a class label",
                fix="label=0",
            )
        return np.full(batch, null_label, np.int64)
    shape = check_array("label", label).shape
    many = len(shape) > 0
    labels: list[Any] = list(label) if many else [label]  # type: ignore[arg-type]
    if many and shape != (batch,):
        raise OptionError(
            "there must be one label for each sample",
            got=f"labels of shape {shape}",
            expected=f"{batch}, as batch={batch}",
            fix=f"ask for a batch of {len(labels)}, or give one label for all"
            if labels
            else "give one label for all",
        )
    top = np.iinfo(np.int64).max if classes is None else classes - 1
    checked = [check_whole("label", value, 0, top, also=null_label) for value in labels]
    return np.array(checked if many else checked * batch, np.int64)
