"""The certificate of a bundle: what it computes beside the torch network it came from."""

from dpmrt.export.certificate.limits import LIMITS, limits_of
from dpmrt.export.certificate.proof import verify, writes_parity
from dpmrt.export.certificate.runners import BackendRunner, TorchRunner

__all__ = ["LIMITS", "BackendRunner", "TorchRunner", "limits_of", "verify", "writes_parity"]
