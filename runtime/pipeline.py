"""Pipeline: a bundle and a backend that sample together."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import MANIFEST_NAME, Manifest
from dpmrt.errors import ArrayError, BackendError, BundleError, OptionError
from dpmrt.runtime.backends import Backend, open_backend
from dpmrt.runtime.binding import Bound, bind_network
from dpmrt.runtime.bundle import OpenBundle, open_bundle
from dpmrt.runtime.classifier import Classifier
from dpmrt.runtime.conditions import Conditions, check_conditions
from dpmrt.runtime.network_checks import check_network, check_times
from dpmrt.runtime.request import (
    Labels,
    check_array,
    check_batch,
    check_noise,
    check_schedule,
    check_shape,
    check_x_T,
)
from dpmrt.runtime.sizes import Sizes
from dpmrt.solvers_np import (
    Callback,
    NoiseSchedule,
    NoiseSource,
    StepPlan,
    compile_plan,
    make_noise,
    plan_from_diffusers,
    schedule_from_diffusers,
)

Noise: TypeAlias = "NDArray[Any] | NoiseSource | Callable[[tuple[int, ...]], NDArray[Any]] | None"

_KEPT_BINDINGS = 4
#: what compile_plan takes beside the options of a solver and its grid, and what `plan` settles itself
_SETTLED = frozenset({"solver", "schedule", "steps"})
_COMPILE = "Pipeline.plan(...) / --save-plan for this bundle, with its schedule and prediction"


def load(
    bundle: str | Path, engine: str | Backend = "auto", *, names: Mapping[str, str] | None = None, **options: Any
) -> Pipeline:
    """Load a bundle: a folder, or the name of one that ships with dpmrt.

    `engine` is a backend's name, or a backend; `options` are the backend's own, as `threads=2`. `names` maps roles
    to the graph's names for a folder that has no manifest and whose exporter used unusual ones.

    >>> with load("digits") as pipeline:
    ...     pipeline.sample(2, seed=0).shape
    (2, 1, 16, 16)
    """
    opened = open_bundle(bundle, names=names)
    if isinstance(engine, str):
        backend = open_backend(engine, opened.root, opened.manifest.unet, **options)
    elif not isinstance(engine, Backend):
        raise OptionError(
            "engine is neither a name nor a backend", got=repr(engine), expected="a name, as 'auto', or a Backend"
        )
    elif options:
        raise OptionError("a backend that is open already takes no options", got=", ".join(options), expected="none")
    else:
        backend = engine
    try:
        return Pipeline(opened, backend)
    except BaseException:
        backend.close()
        raise


class Pipeline:
    """A loaded bundle. `sample` may be called from many threads; they take turns, as the buffers are shared."""

    def __init__(self, bundle: OpenBundle, backend: Backend) -> None:
        check_network(backend, bundle.manifest.unet)
        self.bundle = bundle
        self._backend: Backend | None = backend
        self._classifier: Classifier | None = None
        self._bound: OrderedDict[tuple[object, ...], Bound] = OrderedDict()
        self._lock = threading.RLock()
        self._running = False

    @property
    def manifest(self) -> Manifest:
        """Return the bundle's manifest."""
        return self.bundle.manifest

    def plan(self, /, steps: int | None = None, solver: str | None = None, **options: Any) -> StepPlan:
        """Compile the plan that `sample` runs for the same arguments.

        Without a solver it is the manifest's, or else the scheduler config is followed, whose keys `options` replace.

        >>> with load("digits") as pipeline:
        ...     pipeline.plan(steps=10).calls
        10
        """
        defaults = self.manifest.defaults
        steps = defaults.steps if steps is None else steps
        if solver is None:
            solver, options = defaults.solver, {**defaults.options, **options}
        if solver is None:
            return plan_from_diffusers({**self.bundle.scheduler_config, **options}, steps)
        if taken := sorted(_SETTLED.intersection(options)):
            raise OptionError(
                f"solver {solver!r} has no option of this name",
                got=", ".join(taken),
                expected="options of the solver or of its grid",
                fix="leave it out: the schedule is the one the network was trained with",
            )
        schedule = schedule_from_diffusers(self.bundle.scheduler_config)
        return compile_plan(solver, schedule, steps, **{"prediction": self.manifest.prediction, **options})

    def sample(
        self,
        /,
        batch: int = 1,
        *,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        label: Labels = None,
        conditions: Mapping[str, Any] | None = None,
        negative: Mapping[str, Any] | None = None,
        shape: Sequence[int] | None = None,
        x_T: NDArray[Any] | None = None,
        noise: Noise = None,
        plan: StepPlan | None = None,
        callback: Callback | None = None,
        encoder_hidden_states: NDArray[Any] | None = None,
        negative_hidden_states: NDArray[Any] | None = None,
        **solver_options: Any,
    ) -> NDArray[np.float32]:
        """Draw `batch` samples; the array, (batch, *shape), is the caller's.

        The initial noise, of unit variance, is `x_T`, or else the first draw of torch's CPU generator with `seed`, or
        of one generator a sample with a list of seeds; the plan says how it is scaled. Fresh noise follows from the
        same generator, or from `noise`. `shape` is one sample's, where the network leaves it open.

        `label` is one class or one a sample. `conditions` are arrays by their names, of one row or one row a sample,
        `negative` those that guidance moves away from, `guidance` its scale; text may be given by
        `encoder_hidden_states` and `negative_hidden_states` instead. A request that cannot be honoured raises before
        the network runs.

        >>> with load("digits") as pipeline:
        ...     pipeline.sample(3, seed=7, steps=5).dtype
        dtype('float32')
        """
        if x_T is not None:
            x_T = check_array("the initial noise (x_T, --noise)", x_T)
        chosen = self.sample_shape(x_T, shape)
        batch = check_batch(batch, chosen)
        if callback is not None and not callable(callback):
            raise OptionError("callback cannot be called", got=repr(callback), expected="a function of a StepEvent")
        settled = check_conditions(
            self.bundle,
            batch,
            chosen,
            label=label,
            guidance=guidance,
            conditions=conditions,
            negative=negative,
            hidden=encoder_hidden_states,
            null_hidden=negative_hidden_states,
        )
        plan = self._settle_plan(plan, steps, solver, solver_options)
        check_times(self.manifest.unet, plan)
        check_noise(plan, noise)
        stream = make_noise("torch-cpu", seed)
        x = stream.normal((batch, *chosen)) if x_T is None else check_x_T(x_T, batch, chosen)
        if plan.init_scale != 1:
            x = x * x.dtype.type(plan.init_scale)
        with self._lock:
            if self._running:
                raise OptionError("sample was called from its own callback", fix="call it when the first is done")
            self._running = True
            try:
                denoiser, executor = self._bind(plan, batch, chosen, settled)
                denoiser.condition(settled.values, settled.null, settled.scale)
                return executor.run(x, noise=stream if noise is None else noise, callback=callback)
            finally:
                self._running = False

    def classifier_gradient(self, x: NDArray[Any], t: float | NDArray[Any], label: Labels) -> NDArray[np.float32]:
        """Return the gradient of log p(label | x) with respect to `x`, (batch, *shape), noised to the time `t`.

        Time and label are one for all, or one a sample. The classifier is opened on first use, for bundles that have
        one.
        """
        with self._lock:
            self._open_backend()
            if self._classifier is None:
                network = self.manifest.classifier
                if network is None:
                    raise BundleError(
                        "the bundle has no classifier",
                        got=self.bundle.root,
                        expected=f"`classifier` in {MANIFEST_NAME}",
                        fix="export the network again together with its classifier",
                    )
                self._classifier = Classifier(self.bundle.root, network, classes=self.bundle.classes)
            return self._classifier.gradient(x, t, label)

    def refit(self, weights: str | Path) -> None:
        """Put other weights of the same network into a built engine, from .onnx or .safetensors, without a rebuild.

        `load(bundle, engine="tensorrt", refit=weights)` does it at once. The engine has to be built with --refit.
        """
        with self._lock:
            backend = self._open_backend()
            refit = getattr(backend, "refit", None)
            if refit is None:
                raise BackendError(
                    "the engine takes no other weights",
                    got=type(backend).__name__,
                    expected="a TensorRT engine that was built with --refit",
                    fix="load(bundle, engine='tensorrt')",
                )
            refit(weights)

    def sample_shape(self, x_T: NDArray[Any] | None = None, shape: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return one sample's shape: `shape`, that of `x_T`, or the network's usual one."""
        chosen = self._usual_shape(x_T) if shape is None else check_shape(shape)
        network = self.manifest.unet
        Sizes(network.axes).take("the sample", network.sample_shape, chosen)
        return chosen

    def _usual_shape(self, x_T: NDArray[Any] | None) -> tuple[int, ...]:
        declared = self.manifest.unet.sample_shape
        given = None if x_T is None else x_T.shape[1:]
        if given is not None and len(given) == len(declared):
            fixed = all(axis == size for axis, size in zip(declared, given) if isinstance(axis, int))
            if fixed and min(given) > 0:
                return given
        shape = self.bundle.sample_shape
        if shape is None:
            raise ArrayError(
                "the size of the samples is not known",
                got=f"sample{list(declared)} in the graph, and no initial noise",
                expected="`sample_size` in the network's config, a shape, or the initial noise",
                fix="pass the shape of one sample (shape, --shape), or the initial noise (x_T, --noise)",
            )
        return shape

    def close(self) -> None:
        """Let go of the network and of the buffers."""
        with self._lock:
            self._bound.clear()
            if self._classifier is not None:
                self._classifier.close()
            self._classifier = None
            if self._backend is not None:
                self._backend.close()
            self._backend = None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _settle_plan(
        self, plan: StepPlan | None, steps: int | None, solver: str | None, options: Mapping[str, Any]
    ) -> StepPlan:
        if plan is None:
            plan = self.plan(steps, solver, **options)
        elif not isinstance(plan, StepPlan):
            raise OptionError(
                "plan is no plan",
                got=repr(plan),
                expected="a StepPlan",
                fix="compile one with Pipeline.plan(...), or read one with StepPlan.load(path)",
            )
        elif steps is not None or solver is not None or options:
            named = [*(["steps"] if steps is not None else []), *(["solver"] if solver is not None else []), *options]
            raise OptionError(
                "a plan leaves nothing to choose about the solver",
                got="plan and " + ", ".join(named),
                expected="a plan alone",
                fix="leave out the plan, or compile another with Pipeline.plan(...)",
            )
        made_for = plan.meta.get("prediction", self.manifest.prediction)
        if made_for != self.manifest.prediction:
            raise OptionError(
                "the plan is for a network that predicts something else",
                got=made_for,
                expected=self.manifest.prediction,
                fix=f"compile it with {_COMPILE}",
            )
        if self._schedule is not None:
            check_schedule(plan, self._schedule, fix=f"compile it with {_COMPILE}")
        return plan

    @functools.cached_property
    def _schedule(self) -> NoiseSchedule | None:
        """The schedule that the network was trained with, where the config is one that dpmrt reads and inverts."""
        try:
            return schedule_from_diffusers(self.bundle.scheduler_config)
        except OptionError:
            return None

    def _bind(self, plan: StepPlan, batch: int, shape: tuple[int, ...], conditions: Conditions) -> Bound:
        backend = self._open_backend()
        shapes = conditions.shapes()
        key = (plan.digest(), batch, shape, conditions.guided, tuple(sorted(shapes.items())))
        bound = self._bound.pop(key, None)
        if bound is None:
            network, guided = self.manifest.unet, conditions.guided
            bound = bind_network(backend, network, plan, (batch, *shape), guided=guided, conditions=shapes)
            while len(self._bound) >= _KEPT_BINDINGS:
                self._bound.popitem(last=False)
        self._bound[key] = bound
        return bound

    def _open_backend(self) -> Backend:
        if self._backend is None:
            raise BackendError("the pipeline is closed", fix="load the bundle again")
        return self._backend
