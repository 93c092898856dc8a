"""From the builder's own words: which layer failed, and the way out where one is known."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: what a message of TensorRT holds, and what helps; the first that is found
_KNOWN: tuple[tuple[str, str], ...] = (
    ("no tactics to implement the operation within workspace limit", "a larger --memPoolSize=workspace:MiB, or none"),
    ("requires bigger workspace", "a larger --memPoolSize=workspace:MiB, or none"),
    ("for Turing", "leave sm75 out of --target"),
    ("CUDA driver version is insufficient", "a newer NVIDIA driver, or --target portable where there is no GPU"),
    ("CUDA initialization failure", "a driver as new as TensorRT's CUDA, or the TensorRT for its CUDA: dpmrt doctor"),
    ("CUDA_SUCCESS", "build where there is a GPU, or without --refit and --stripWeights"),
    ("libnvinfer_lean", "leave --versionCompatible out"),
    ("out of memory", "free memory, or limit it with --memPoolSize=workspace:MiB"),
    ("bad_alloc", "free memory, or add swap"),
    ("Failed to open file", "see that the weights lie beside the graph, as the exporter wrote them"),
    ("Failed to parse ONNX model from file", "export the network again: dpmrt export SOURCE -o BUNDLE"),
    (
        "No importer registered for op",
        "export the network without this operator, or run it with engine='onnxruntime'",
    ),
    ("Plugin not found", "export the network without this operator, or run it with engine='onnxruntime'"),
    ("checkFallbackPluginImporter", "export the network without this operator, or run it with engine='onnxruntime'"),
    ("dimensions not compatible", "see that every profile has shapes that the graph takes"),
    ("Static dimension mismatch", "see that every profile has shapes that the graph takes"),
    ("IOptimizationProfile", "see that every profile has shapes that the graph takes"),
)
_LAYER = re.compile(
    r"(?:Could not find any implementation for node|Cannot compile operation|layer|node|LayerImpl|Exception in)"
    r"\s*[\[{'\"]*([A-Za-z_/][\w/.:+-]*)"
)
#: what the library adds to any complaint on a machine without a driver
_ASIDE = re.compile(
    r"\s*(?:\[checkMacros\.cpp::catchCudaError[^\]]*\])?\s*"
    r"Error Code 1: Cuda Runtime \(In catchCudaError[^()]*\(cudaError 35:[^()]*\)\)"
)


def own_words(text: str) -> str:
    """Return a message of the builder without what it adds for want of a driver, if anything else is in it.

    >>> own_words("node a: bad [checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError "
    ...           "at checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient))")
    'node a: bad'
    """
    return _ASIDE.sub("", text).strip() or text


def failing_layer(lines: Iterable[str]) -> str | None:
    """Return the layer that a message of the builder names, if one does.

    >>> failing_layer(["[pass.cpp:337] Cannot compile operation 'node_linear' for Turing (SM75)"])
    'node_linear'
    """
    for line in lines:
        if match := _LAYER.search(line):
            return match[1]
    return None


def way_out(text: str) -> str | None:
    """Return what helps against a message of the builder, where that is known.

    >>> way_out("Unable to load library: libnvinfer_lean.so.1")
    'leave --versionCompatible out'
    """
    return next((help_ for sign, help_ in _KNOWN if sign in text), None)
