"""The scale of classifier-free guidance that a caller asks for."""

from __future__ import annotations

import math
from typing import TypeGuard

import numpy as np

from dpmrt.engines import Manifest
from dpmrt.errors import OptionError
from dpmrt.runtime.request import brief


def check_scale(manifest: Manifest, guidance: object, *, labelled: bool, negative: bool) -> float:
    """Return the guidance scale that applies: 1 is no guidance.

    `labelled` and `negative` say whether the caller gives a label, and something to guide away from.
    """
    setup = manifest.guidance
    if guidance is None and setup is not None and labelled:
        return float(setup.scale)
    if guidance is None and negative:
        raise OptionError(
            "there is something to guide away from, and no scale of guidance",
            got="negative, and guidance=None",
            expected="a scale, as the bundle has none for this request",
            fix="guidance=5 (--guidance 5), or leave out the negative",
        )
    if guidance is None:
        return 1.0
    if not _is_scale(guidance):
        raise OptionError(
            "guidance is not a scale", got=brief(guidance), expected="a finite number", fix="guidance=2.0"
        )
    if setup is None and not negative and not manifest.unet.folded_guidance:
        raise OptionError(
            "the network was not trained for guidance, or the bundle does not say so",
            got=f"guidance={guidance!r}",
            expected="guidance=None",
            fix="leave out guidance, give what to guide away from with `negative`, or pick a bundle whose manifest "
            "has `guidance`",
        )
    if setup is not None and not labelled and not negative:
        raise OptionError(
            "guidance has nothing to guide to without a label",
            got=f"guidance={guidance!r} and label=None",
            expected=f"a label from 0 to {setup.classes - 1}",
            fix="pass label=0, or leave out guidance",
        )
    return float(guidance)


def _is_scale(guidance: object) -> TypeGuard[float]:
    if isinstance(guidance, bool) or not isinstance(guidance, (int, float, np.integer, np.floating)):
        return False
    try:
        return math.isfinite(guidance)
    except OverflowError:
        return False
