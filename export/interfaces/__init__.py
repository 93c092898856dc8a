"""What networks take and give, declared once; tracing, checks, manifests and examples are derived from it."""

from dpmrt.export.interfaces.interface import Draw, FreeAxis, Input, Interface, Sizes
from dpmrt.export.interfaces.known import INTERFACES, interface_of

__all__ = ["INTERFACES", "Draw", "FreeAxis", "Input", "Interface", "Sizes", "interface_of"]
