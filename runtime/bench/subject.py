"""What is timed: single network calls, the calls of a sample and nothing else, and whole samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dpmrt.runtime.backends import Backend
from dpmrt.runtime.backends.base import Array, Call
from dpmrt.runtime.bench.request import Request
from dpmrt.runtime.bench.schema import Measured, Overhead
from dpmrt.runtime.bench.summary import median, summarise
from dpmrt.runtime.bench.timer import Clock, Timing, measure
from dpmrt.runtime.pipeline import Pipeline
from dpmrt.solvers_np import StepPlan

CALL, SAMPLE = "network call", "whole sample"
Tell = Callable[[str, float], object]


class Subject(Protocol):
    """Something that samples: a pipeline of dpmrt, or a peer."""

    @property
    def calls(self) -> int:
        """Return how many network calls a sample takes."""

    def call(self) -> object:
        """Run the network once; what it computes need not have arrived when this returns."""

    def sample(self) -> NDArray[Any]:
        """Draw the samples of the request, and return them on the host."""

    def synchronise(self) -> object:
        """Wait until everything that was asked for is computed."""


def measure_subject(
    subject: Subject, request: Request, timing: Timing, *, tell: Tell, clock: Clock = time.perf_counter
) -> Measured:
    """Time single calls by themselves; then whole samples and bare calls in turn, whose difference is the loop."""
    wait, calls = subject.synchronise, subject.calls

    def bare() -> None:
        for _ in range(calls):
            subject.call()

    single = measure({CALL: subject.call}, timing, synchronise=wait, clock=clock, tell=lambda part: tell(CALL, part))[
        CALL
    ]
    pairs = measure(
        {SAMPLE: subject.sample, "bare": bare},
        timing,
        synchronise=wait,
        clock=clock,
        tell=lambda part: tell(SAMPLE, part),
    )
    samples, bares = pairs[SAMPLE], pairs["bare"]
    return Measured(
        batch=request.batch,
        rows=request.rows,
        calls=calls,
        call=summarise(single),
        bare=summarise(bares),
        sample=summarise(samples),
        overhead=Overhead(
            per_call=median([(whole - alone) / calls for whole, alone in zip(samples, bares)]),
            ratio=median([whole / alone if alone else float("inf") for whole, alone in zip(samples, bares)]),
        ),
        samples_per_second=request.batch * len(samples) / sum(samples),
    )


class Overheard:
    """Remembers the calls that a pipeline binds on a backend, so that they can be made without its loop.

    The backend itself is what the pipeline gets, which asks it for more than a wrapper would know to pass on.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.bound: list[Call] = []
        bind = backend.bind

        def remembered(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Call:
            call = bind(inputs, outputs)
            self.bound.append(call)
            return call

        setattr(backend, "bind", remembered)  # noqa: B010

    @property
    def device(self) -> str:
        """Return what kind of device the backend computes on: `cpu` or `cuda`."""
        return "cpu" if self._stream is None else "cuda"

    def synchronise(self) -> None:
        """Wait for the stream of a backend that has one."""
        if self._stream is not None:
            self._stream.synchronize()

    @property
    def _stream(self) -> Any:
        return getattr(getattr(self.backend, "place", None), "stream", None)


class PipelineSubject:
    """A pipeline with one request; its bare calls are those that the pipeline itself makes, on the same buffers."""

    def __init__(self, pipeline: Pipeline, overheard: Overheard, request: Request, plan: StepPlan) -> None:
        self._pipeline, self._overheard = pipeline, overheard
        self._request, self._plan = request, plan
        self._next = 0
        overheard.bound.clear()
        #: what was sampled
        self.result = self.sample()

    @property
    def calls(self) -> int:
        """Return how many network calls a sample takes."""
        return self._plan.calls

    def call(self) -> None:
        """Run the network once, with what is in its buffers; in turn, where the slots have a call each."""
        bound = self._overheard.bound
        bound[self._next % len(bound)]()
        self._next += 1

    def sample(self) -> NDArray[np.float32]:
        """Draw the samples of the request."""
        return self._pipeline.sample(plan=self._plan, **self._request.arguments)

    def synchronise(self) -> None:
        """Wait for the backend's stream, where it has one."""
        self._overheard.synchronise()
