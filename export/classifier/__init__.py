"""The gradient of a noise-aware classifier as a graph, so that classifier guidance needs no torch."""

from __future__ import annotations

from dpmrt.export.classifier.gradient import LogProbabilityGradient, trace_gradient
from dpmrt.export.classifier.load import ClassifierSource, load_classifier_source
from dpmrt.export.classifier.write import RECORD, check_fits, check_trained_times, export_classifier

__all__ = [
    "RECORD",
    "ClassifierSource",
    "LogProbabilityGradient",
    "check_fits",
    "check_trained_times",
    "export_classifier",
    "load_classifier_source",
    "trace_gradient",
]
