"""What a pipeline holds open: backend, classifier, vector-Jacobian graph and bound buffers, for one run at a time."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator

from dpmrt.errors import BackendError, OptionError
from dpmrt.runtime.backends import Backend
from dpmrt.runtime.binding import Bound, bind_network
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.classifier import Classifier
from dpmrt.runtime.conditions import Conditions
from dpmrt.runtime.guidance.judge import need_classifier
from dpmrt.solvers_np import StepPlan

_KEPT_BINDINGS = 4


class Held:
    """The open parts of a bundle; what is seldom needed is opened on first use."""

    def __init__(self, bundle: OpenBundle, backend: Backend) -> None:
        self.lock = threading.RLock()
        self.bound: OrderedDict[tuple[object, ...], Bound] = OrderedDict()
        self._bundle = bundle
        self._backend: Backend | None = backend
        self._classifier: Classifier | None = None
        self._product: Backend | None = None
        self._running = False

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the buffers, which runs share, and refuse a run from within a run."""
        with self.lock:
            if self._running:
                raise OptionError("sample was called from its own callback", fix="call it when the first is done")
            self._running = True
            try:
                yield
            finally:
                self._running = False

    def bind(self, plan: StepPlan, batch: int, shape: tuple[int, ...], conditions: Conditions) -> Bound:
        """Return the network bound to a plan: anew, or as one of the last few runs left it."""
        backend = self.backend()
        shapes = conditions.shapes()
        key = (plan.digest(), batch, shape, conditions.guided, tuple(sorted(shapes.items())))
        bound = self.bound.pop(key, None)
        if bound is None:
            network, guided = self._bundle.manifest.unet, conditions.guided
            bound = bind_network(backend, network, plan, (batch, *shape), guided=guided, conditions=shapes)
            while len(self.bound) >= _KEPT_BINDINGS:
                self.bound.popitem(last=False)
        self.bound[key] = bound
        return bound

    def backend(self) -> Backend:
        """Return what runs the network."""
        if self._backend is None:
            raise BackendError("the pipeline is closed", fix="load the bundle again")
        return self._backend

    def classifier(self) -> Classifier:
        """Return the bundle's classifier, for bundles that have one."""
        self.backend()
        if self._classifier is None:
            network, classes = need_classifier(self._bundle), self._bundle.classifier_classes
            self._classifier = Classifier(self._bundle.root, network, classes=classes)
        return self._classifier

    def product(self) -> Backend:
        """Return what runs the vector-Jacobian graph, for bundles that have one."""
        # Only asked for here: sampling need not wait for it.
        from dpmrt.runtime.vjp import open_product

        self.backend()
        if self._product is None:
            self._product = open_product(self._bundle.root, self._bundle.manifest.vjp)
        return self._product

    def close(self) -> None:
        """Let go of all of it."""
        with self.lock:
            self.bound.clear()
            for part in (self._classifier, self._product, self._backend):
                if part is not None:
                    part.close()
            self._classifier = self._product = self._backend = None
