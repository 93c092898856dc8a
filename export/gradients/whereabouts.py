"""Where in a network an operator is called: the module's name, and the line."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_SKIPPED = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


def whereabouts(network: Any, call: Callable[[], object], operator: str, *, what: str) -> str:
    """Return ", called in MODULE (file.py:LINE)" for the first call of an operator or of the one it is backward of.

    `call` runs the network forward, which an error calls `what`. An empty string is returned where that calls no such
    operator.
    """
    name = operator.replace("::", ".").removeprefix("aten.").partition(".")[0]
    watch = _Watch({name, name.removesuffix("_backward")}, f"the {what}")
    hooks = []
    for path, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(functools.partial(watch.enter, path)))
        hooks.append(module.register_forward_hook(watch.leave, always_call=True))
    try:
        with torch.no_grad(), watch:
            call()
    except Exception:
        # What was seen until then still counts: the caller is about to report a failure of its own.
        return watch.seen
    finally:
        for hook in hooks:
            hook.remove()
    return watch.seen


def raised_at(error: BaseException) -> str:
    """Return " (file.py:LINE)" for the last line outside torch that an error came through."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [f" ({Path(file).name}:{line})" for file, line in frames if not file.startswith(_SKIPPED)]
    return own[-1] if own else ""


class _Watch(TorchDispatchMode):  # type: ignore[misc]
    """Notes the module and the line at which one of some operators is first called."""

    def __init__(self, names: set[str], whole: str) -> None:
        super().__init__()
        self.names = names
        self.whole = whole
        self.entered: list[str] = []
        self.seen = ""

    def enter(self, path: str, *_: Any) -> None:
        """Go into the module at `path`."""
        self.entered.append(path or self.whole)

    def leave(self, *_: Any) -> None:
        """Go back to the module around."""
        self.entered.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self.seen and func._schema.name.partition("::")[2] in self.names:
            self.seen = f", called in {self.entered[-1] if self.entered else self.whole}{_line()}"
        return func(*args, **(kwargs or {}))


def _line() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_SKIPPED):
        frame = frame.f_back
    return f" ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
