"""`parity.json`: the last verification of a bundle, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from dpmrt.engines.json_file import write_json
from dpmrt.errors import BundleError

PARITY_NAME = "parity.json"
PARITY_VERSION = 1


class StepDrift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the bundle's state is from torch's after one step; `drift` is relative to the RMS of torch's."""

    t: float
    rms: float
    max_abs: float
    drift: float


class ParityReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole trajectory of a bundle beside the same trajectory in torch."""

    format: Literal["dpmrt-parity"]
    version: int
    passed: bool
    drift: float
    tolerance: float
    scheduler: str
    backend: str
    options: dict[str, int | float | None]
    steps: tuple[StepDrift, ...]
    onnx_sha256: str
    weights_sha256: str
    date: str
    versions: dict[str, str]


def read_parity(bundle: Path) -> ParityReport | None:
    """Return the last verification of a bundle, or None where there was none."""
    path = Path(bundle) / PARITY_NAME
    fix = "verify the bundle again: dpmrt verify BUNDLE"
    try:
        report = msgspec.json.decode(path.read_bytes(), type=ParityReport)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(
            f"{PARITY_NAME} cannot be read", got=error, expected="what `dpmrt verify` writes", fix=fix
        ) from None
    if report.version != PARITY_VERSION:
        raise BundleError(f"{PARITY_NAME}: unknown `version`", got=report.version, expected=PARITY_VERSION, fix=fix)
    return report


def write_parity(bundle: Path, report: ParityReport) -> Path:
    """Write `parity.json` into a bundle folder; an older one is replaced whole."""
    return write_json(Path(bundle) / PARITY_NAME, report)
