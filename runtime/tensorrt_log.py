"""What TensorRT says while it works: passed on to `logging`, the last errors kept for the error that is raised."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

LOG = logging.getLogger("dpmrt.tensorrt")
_KEPT = 5


class Messages:
    """The last errors that TensorRT wrote."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=_KEPT)

    def add(self, severity: str, text: str) -> None:
        """Take one message; severity is TensorRT's name for it."""
        if "ERROR" in severity:
            self._errors.append(text.strip())
            LOG.debug("%s", text)
        else:
            LOG.log(logging.WARNING if severity == "WARNING" else logging.DEBUG, "%s", text)

    def take(self) -> str:
        """Return what was kept, oldest first, and forget it."""
        text = "\n".join(self._errors) or "no reason given"
        self._errors.clear()
        return text


def make_logger(trt: Any, messages: Messages) -> Any:
    """Return a logger of the library that writes to `messages`. It has to live as long as what it is given to."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            messages.add(severity.name, msg)

    return Logger()
