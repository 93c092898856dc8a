"""The conditions of the data that is measured over: one for all of it, or one for each sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpmrt.errors import ArrayError, OptionError
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.calibration.data import Array, Chosen
from dpmrt.runtime.conditions import LABELS, check_conditions
from dpmrt.runtime.request import Labels, check_array


class Asked:
    """Labels and conditions, of which those of the chosen samples are kept."""

    def __init__(self, chosen: Chosen, label: Labels, conditions: Mapping[str, Any] | None) -> None:
        given = dict(conditions or {})
        if label is not None and LABELS in given:
            raise OptionError(f"{LABELS} is given twice", got="label=... and conditions", expected="one of them")
        if label is not None:
            given[LABELS] = label
        self._guidable = False
        self._arrays = {role: _chosen_rows(role, value, chosen) for role, value in given.items()}

    @property
    def varies(self) -> bool:
        """Return whether the samples have conditions of their own."""
        return any(_is_per_sample(array) for array in self._arrays.values())

    def of(self, rows: slice) -> dict[str, Any]:
        """Return what `Pipeline.model` takes for these samples."""
        picked = {role: array[rows] if _is_per_sample(array) else array for role, array in self._arrays.items()}
        label = picked.pop(LABELS, None)
        if label is None:
            return {"conditions": picked}
        return {"label": label.tolist(), "guidance": 1.0 if self._guidable else None, "conditions": picked}

    def check(self, bundle: OpenBundle, samples: int, shape: tuple[int, ...]) -> None:
        """Hold all of them against what the network takes."""
        self._guidable = bundle.manifest.guidance is not None
        check_conditions(bundle, samples, shape, **self.of(slice(None)))

    def described(self) -> dict[str, str]:
        """Return a word for each condition: the number that it is, or its hash."""
        return {role: _word(array) for role, array in sorted(self._arrays.items())}


def _is_per_sample(array: Array) -> bool:
    return array.ndim > 0 and len(array) > 1


def _chosen_rows(role: str, value: object, chosen: Chosen) -> Array:
    """Return one row, or those of the samples that are measured over."""
    array = check_array(role, value)
    if role == LABELS and array.shape == (1,):
        array = array[0]
    if not _is_per_sample(array):
        return array
    if len(array) != chosen.total:
        raise ArrayError(
            f"{role} is neither one for all data nor one for each",
            got=f"{len(array)} for {chosen.total} data",
            expected=f"1 or {chosen.total}",
        )
    return np.asarray(array[chosen.rows])


def _word(array: Array) -> str:
    if array.size == 1:
        return str(array.item())
    plain = np.ascontiguousarray(array)
    return hashlib.sha256(f"{plain.dtype.str}{plain.shape}".encode() + plain.tobytes()).hexdigest()
