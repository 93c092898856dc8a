"""Which of the runtime's backends a bundle is verified on."""

from __future__ import annotations

from collections.abc import Sequence

from dpmrt.engines import Manifest
from dpmrt.errors import OptionError, VerificationError
from dpmrt.runtime.backends import BACKENDS

ORT, EMULATED = "onnxruntime", "emulated"


def choose_backends(manifest: Manifest, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the backends that were asked for, or else all that can run the bundle here; refuse one that cannot."""
    for name in wanted or ():
        if reason := _lacking(manifest, name):
            raise VerificationError(
                f"the backend {name} cannot run this bundle",
                got=reason,
                expected=", ".join(_able(manifest)) or "none",
                fix="leave --backend out: it is verified on all that can",
            )
    chosen = tuple(dict.fromkeys(wanted)) if wanted else _able(manifest)
    if not chosen:
        raise VerificationError(
            "no backend here can run the bundle",
            got="; ".join(str(_lacking(manifest, name)) for name in (ORT, EMULATED)),
            expected=f"{ORT} or {EMULATED}",
            fix="export it again: dpmrt export SOURCE -o BUNDLE",
        )
    return chosen


def graph_of(manifest: Manifest, backend: str) -> str:
    """Return the path of the graph that a backend runs, within the bundle."""
    emulated = manifest.unet.precision.emulated
    return emulated if backend == EMULATED and emulated is not None else manifest.unet.path


def _able(manifest: Manifest) -> tuple[str, ...]:
    return tuple(name for name in (ORT, EMULATED) if _lacking(manifest, name) is None)


def _lacking(manifest: Manifest, name: str) -> str | None:
    """Return why a backend cannot run the bundle, or None if it can."""
    precision = manifest.unet.precision
    if name == EMULATED and precision.emulated is None:
        return f"the bundle is {precision.kind} and has no emulated graph"
    if name not in BACKENDS or name == "numpy":
        known = ", ".join(sorted(set(BACKENDS) - {"numpy"}))
        raise OptionError("unknown engine", got=repr(name), expected=known, fix="leave --backend out")
    if name == ORT and precision.kind == "bf16":
        return "ONNX Runtime has no bf16 kernels on the CPU"
    return None
