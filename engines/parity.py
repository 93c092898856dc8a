"""`parity.json`: the last verification of a bundle, call by call and step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from dpmrt.engines.json_file import write_json
from dpmrt.engines.schema import PrecisionName
from dpmrt.errors import BundleError

PARITY_NAME = "parity.json"
DRIFT_NAME = "drift.png"
PARITY_VERSION = 2

_FIX = "verify the bundle again: dpmrt verify BUNDLE"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What passes; None where there is no limit.

    `call` is the largest error of a single call over the RMS of its output and `call_rms` that of the RMS of its
    errors, `drift` the RMS of the difference at a trajectory's end over that of torch's sample, `psnr` the least peak
    signal-to-noise ratio there, in dB.
    """

    call: float | None
    drift: float | None
    psnr: float | None = None
    call_rms: float | None = None


class Peak(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How wide the samples range, which PSNR is relative to: the width of the data's range, or of torch's sample."""

    width: float
    of: Literal["data_range", "sample"]


class CallParity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call of the network beside the same call in torch.

    `rms` is that of torch's output; `max_relative` and `rms_relative` are the largest difference and the RMS of all
    over it. The three are None where the bundle gave NaN or infinity.
    """

    sizes: dict[str, int]
    times: tuple[float, ...]
    seed: int
    rms: float
    max_abs: float | None
    max_relative: float | None
    rms_relative: float | None


class StepDrift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the bundle's state is from torch's after one step; `drift` is relative to the RMS of torch's.

    `psnr` is None where the two are equal.
    """

    t: float
    rms: float
    max_abs: float
    drift: float
    psnr: float | None = None


class BackendParity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one backend made of the bundle. `onnx_sha256` is that of `graph`, the file that it ran.

    `drift` and `psnr` are those of the last step; `drift` is None where the trajectory did not reach it. `failures`
    says in words what was beyond the limits.
    """

    backend: str
    passed: bool
    graph: str
    onnx_sha256: str
    steps: tuple[StepDrift, ...]
    drift: float | None
    psnr: float | None = None
    calls: tuple[CallParity, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def worst_call(self) -> CallParity | None:
        """Return the call with the largest relative error, or the first without a number."""
        return max(self.calls, key=lambda c: float("inf") if c.max_relative is None else c.max_relative, default=None)


class GraphParity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One output of a graph beside the network's own, held against torch.autograd call by call.

    `network` is the classifier, whose output is a gradient; or the product of a vector with the network's Jacobian,
    which gives the network's own output too. `weights_sha256` is that of the torch network it was held against.
    """

    network: Literal["classifier", "vjp"]
    output: str
    passed: bool
    backend: str
    graph: str
    onnx_sha256: str
    weights_sha256: str
    limits: Limits
    calls: tuple[CallParity, ...]
    failures: tuple[str, ...] = ()

    @property
    def worst(self) -> float | None:
        """Return the largest RMS of errors over the RMS of torch's output; None where a call gave no numbers."""
        errors = [call.rms_relative for call in self.calls]
        known = [error for error in errors if error is not None]
        return max(known) if known and len(known) == len(errors) else None


class ParityReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bundle on every backend beside its network in torch; `shape` is one sample's, without the batch axis.

    `followed` says what torch took its trajectory by: diffusers' scheduler; or, where that has none, the same plan as
    the bundle, so that the trajectory compares the network and not the sampler. `graphs` are those of backward
    passes, where the bundle has them.

    Of a report that an earlier dpmrt wrote, `version` is 1, and what it did not say is empty.
    """

    format: Literal["dpmrt-parity"]
    version: int
    passed: bool
    precision: PrecisionName
    limits: Limits
    scheduler: str
    options: dict[str, int | float | None]
    backends: tuple[BackendParity, ...]
    weights_sha256: str
    date: str
    versions: dict[str, str]
    machine: str = ""
    shape: tuple[int, ...] = ()
    peak: Peak | None = None
    followed: Literal["scheduler", "plan"] = "scheduler"
    graphs: tuple[GraphParity, ...] = ()

    @property
    def drift(self) -> float | None:
        """Return the largest final drift of all backends; None where one of them did not reach the end."""
        drifts = [b.drift for b in self.backends if b.drift is not None]
        return max(drifts) if drifts and len(drifts) == len(self.backends) else None


class _ReportV1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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

    def report(self) -> ParityReport:
        """Return the report as it is written today."""
        ran = BackendParity(self.backend, self.passed, "unet/model.onnx", self.onnx_sha256, self.steps, self.drift)
        return ParityReport(
            format=self.format,
            version=1,
            passed=self.passed,
            precision="fp32",
            limits=Limits(call=None, drift=self.tolerance),
            scheduler=self.scheduler,
            options=self.options,
            backends=(ran,),
            weights_sha256=self.weights_sha256,
            date=self.date,
            versions=self.versions,
        )


class _Version(msgspec.Struct):
    version: int


def read_parity(bundle: Path) -> ParityReport | None:
    """Return the last verification of a bundle, or None where there was none."""
    path = Path(bundle) / PARITY_NAME
    try:
        content = path.read_bytes()
        version = msgspec.json.decode(content, type=_Version).version
        if version == 1:
            return msgspec.json.decode(content, type=_ReportV1).report()
        if version == PARITY_VERSION:
            return msgspec.json.decode(content, type=ParityReport)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise BundleError(
            f"{PARITY_NAME} cannot be read", got=error, expected="what `dpmrt verify` writes", fix=_FIX
        ) from None
    raise BundleError(f"{PARITY_NAME}: unknown `version`", got=version, expected=f"1 or {PARITY_VERSION}", fix=_FIX)


def write_parity(bundle: Path, report: ParityReport) -> Path:
    """Write `parity.json` into a bundle folder; an older one is replaced whole."""
    return write_json(Path(bundle) / PARITY_NAME, report)
