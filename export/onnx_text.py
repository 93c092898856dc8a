"""What the exporter says and writes beside the graph: kept for errors, kept out of files."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from onnxscript import ir

_CHATTY = ("torch", "onnxscript", "onnx_ir")


def strip(model: ir.Model) -> None:
    """Remove stack traces, which name the paths of the build machine and outweigh a small network."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


@contextlib.contextmanager
def quietly() -> Iterator[list[str]]:
    """Collect what the exporter would print, for the error if it fails."""
    said: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            said.append(record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith(_CHATTY)]
    handlers = {handler for logger in [*loggers, logging.root] for handler in logger.handlers}
    # torch.export prints the graph of what it could not trace.
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        for handler in handlers:
            handler.addFilter(collect)
        try:
            yield said
        finally:
            for handler in handlers:
                handler.removeFilter(collect)
            said.extend(str(warning.message) for warning in caught)
