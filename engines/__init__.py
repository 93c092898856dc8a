"""What a deployable bundle is on disk: the manifest, its checks, and the bundle that ships with dpmrt."""

from dpmrt.engines.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    check_numbers,
    hash_file,
    read_manifest,
    record_file,
    write_manifest,
)
from dpmrt.engines.parity import PARITY_NAME, ParityReport, StepDrift, read_parity, write_parity
from dpmrt.engines.schema import (
    NEGATIVE,
    PRECISIONS,
    Axis,
    Defaults,
    FileRecord,
    Guidance,
    Manifest,
    Network,
    Pin,
    Precision,
    PrecisionName,
    TensorSpec,
)
from dpmrt.engines.shipped import is_shipped, shipped_bundle

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "NEGATIVE",
    "PRECISIONS",
    "Axis",
    "Pin",
    "Precision",
    "PrecisionName",
    "Defaults",
    "FileRecord",
    "Guidance",
    "Manifest",
    "PARITY_NAME",
    "Network",
    "ParityReport",
    "StepDrift",
    "read_parity",
    "write_parity",
    "TensorSpec",
    "check_numbers",
    "hash_file",
    "is_shipped",
    "read_manifest",
    "record_file",
    "shipped_bundle",
    "write_manifest",
]
