"""What an export needs beyond the torch-free core, checked before it starts."""

from __future__ import annotations

from importlib.util import find_spec

from dpmrt.errors import MissingExtraError

EXPORT_MODULES = ("torch", "diffusers", "safetensors", "onnx", "onnxscript", "onnxruntime", "ml_dtypes", "polygraphy")


def require_export() -> None:
    """Raise MissingExtraError unless everything that exporting and verifying import is installed."""
    missing = [name for name in EXPORT_MODULES if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            "exporting needs packages that are not installed",
            got=f"no {', '.join(missing)}",
            expected=", ".join(EXPORT_MODULES),
            fix="pip install 'dpmrt[export]'",
        )
