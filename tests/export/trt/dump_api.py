"""Print the names of a TensorRT Python API as JSON, class by class. Run as a process: FILE of the extension."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from typing import Any


def names(module: Any) -> dict[str, list[str]]:
    found = {"": sorted(dir(module))}
    for name in dir(module):
        value = getattr(module, name)
        if isinstance(value, type):
            found[name] = sorted(dir(value))
    return found


if __name__ == "__main__":
    # Its functions are bound when they are called, and none is.
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
    spec = importlib.util.spec_from_file_location("tensorrt_bindings.tensorrt", sys.argv[1])
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    print(json.dumps(names(module)))
