"""Pipeline: a bundle and a backend that sample together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpmrt.engines import Manifest
from dpmrt.errors import BackendError, OptionError
from dpmrt.runtime.asked import sample_shape, settle_request
from dpmrt.runtime.backends import Backend
from dpmrt.runtime.bundle import OpenBundle
from dpmrt.runtime.conditions import check_conditions
from dpmrt.runtime.drivers import DRIVERS, Driven, NetworkModel, check_sampler, find_driver, refuse_given
from dpmrt.runtime.guidance.asked import Asked as AskedGuidance
from dpmrt.runtime.held import Held
from dpmrt.runtime.network_checks import check_network
from dpmrt.runtime.plans import make_plan
from dpmrt.runtime.request import Labels, check_batch
from dpmrt.runtime.run import Noise, settle_run
from dpmrt.solvers_np import Callback, Hook, StepPlan
from dpmrt.solvers_np.noise import as_source

if TYPE_CHECKING:
    from dpmrt.runtime.likelihood import Likelihood

#: what a model is conditioned on
_CONDITIONS = ("label", "guidance", "conditions", "negative", "encoder_hidden_states", "negative_hidden_states")


class Pipeline:
    """A loaded bundle. `sample` may be called from many threads; they take turns, as the buffers are shared."""

    def __init__(self, bundle: OpenBundle, backend: Backend) -> None:
        check_network(backend, bundle.manifest.unet)
        self.bundle = bundle
        self._held = Held(bundle, backend)

    @property
    def manifest(self) -> Manifest:
        """Return the bundle's manifest."""
        return self.bundle.manifest

    def plan(self, /, steps: int | None = None, solver: str | None = None, **options: Any) -> StepPlan:
        """Compile the plan that `sample` runs for the same arguments.

        Without a solver it is the manifest's, or else the scheduler config is followed, whose keys `options` replace.

        >>> from dpmrt.runtime import load
        >>> with load("digits") as pipeline:
        ...     pipeline.plan(steps=10).calls
        10
        """
        return make_plan(self.bundle, steps, solver, options)

    def sample(
        self,
        /,
        batch: int = 1,
        *,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        solver: str | None = None,
        guidance: AskedGuidance = None,
        label: Labels = None,
        conditions: Mapping[str, Any] | None = None,
        negative: Mapping[str, Any] | None = None,
        shape: Sequence[int] | None = None,
        x_T: NDArray[Any] | None = None,
        start: NDArray[Any] | None = None,
        noise: Noise = None,
        plan: StepPlan | None = None,
        callback: Callback | None = None,
        hooks: Sequence[Hook] = (),
        encoder_hidden_states: NDArray[Any] | None = None,
        negative_hidden_states: NDArray[Any] | None = None,
        classifier_scale: float | Sequence[float] | None = None,
        classifier_label: Labels = None,
        classifier_mode: str | None = None,
        **solver_options: Any,
    ) -> NDArray[np.float32]:
        """Draw `batch` samples; the array, (batch, *shape), is the caller's.

        The initial noise, of unit variance, is `x_T`, or else the first draw of torch's CPU generator with `seed`, or
        of one generator a sample with a list of seeds; the plan says how it is scaled. Fresh noise follows from the
        same generator, or from `noise`. `shape` is one sample's, where the network leaves it open. `start` is a state
        to begin from as it is, at the level where the plan starts. `hooks` may change outputs and states on the way.

        `label` is one class or one a sample. `conditions` are arrays by their names, of one row or one row a sample,
        `negative` those that guidance moves away from, `guidance` its scale, one a sample, or a `Guidance`; text may
        be given by `encoder_hidden_states` and `negative_hidden_states` instead. `classifier_scale` guides by the
        bundle's classifier to `classifier_label`, or else `label`; `classifier_mode` is "auto", "mean" or "noise". A
        request that cannot be honoured raises before the network runs.

        >>> from dpmrt.runtime import load
        >>> with load("digits") as pipeline:
        ...     pipeline.sample(3, seed=7, steps=5).dtype
        dtype('float32')
        """
        check_sampler(solver)
        if solver is not None and find_driver(solver) is not None:
            refuse_given(
                steps=steps,
                plan=plan,
                start=start,
                hooks=hooks or None,
                classifier_scale=classifier_scale,
                classifier_label=classifier_label,
                classifier_mode=classifier_mode,
            )
            driven = self.drive(
                batch,
                solver=solver,
                seed=seed,
                guidance=guidance,
                label=label,
                conditions=conditions,
                negative=negative,
                shape=shape,
                x_T=x_T,
                noise=noise,
                callback=callback,
                encoder_hidden_states=encoder_hidden_states,
                negative_hidden_states=negative_hidden_states,
                **solver_options,
            )
            return driven.samples
        run = settle_run(
            self.bundle,
            self.classifier_gradient,
            batch,
            seed=seed,
            steps=steps,
            solver=solver,
            guidance=guidance,
            label=label,
            conditions=conditions,
            negative=negative,
            shape=shape,
            x_T=x_T,
            start=start,
            noise=noise,
            plan=plan,
            callback=callback,
            hooks=hooks,
            encoder_hidden_states=encoder_hidden_states,
            negative_hidden_states=negative_hidden_states,
            classifier_scale=classifier_scale,
            classifier_label=classifier_label,
            classifier_mode=classifier_mode,
            options=solver_options,
        )
        settled = run.conditions
        with self._held.turn():
            denoiser, executor = self._held.bind(run.plan, run.batch, run.shape, settled)
            denoiser.condition(settled.values, settled.null, run.scales, settled.scales.rescale)
            return executor.run(run.x, noise=run.noise, callback=callback, hooks=run.hooks)

    def drive(
        self,
        /,
        batch: int = 1,
        *,
        solver: str,
        seed: int | Sequence[int] = 0,
        noise: Noise = None,
        callback: Callback | None = None,
        x_T: NDArray[Any] | None = None,
        shape: Sequence[int] | None = None,
        **options: Any,
    ) -> Driven:
        """Sample with a driver, a sampler without a fixed grid; return the samples and the report of its course.

        Arguments are those of `sample`; what that does not know is the driver's own.
        """
        driver = find_driver(solver)
        if driver is None:
            raise OptionError(
                "no driver has this name",
                got=repr(solver),
                expected=", ".join(sorted(DRIVERS)),
                fix="Pipeline.sample takes every other solver",
            )
        asked = settle_request(
            self.bundle,
            batch,
            seed=seed,
            shape=shape,
            x_T=x_T,
            callback=callback,
            **{name: options.pop(name) for name in _CONDITIONS if name in options},
        )
        with self._held.turn():
            model = NetworkModel(self.bundle, self._held.backend(), (asked.batch, *asked.shape), asked.conditions)
            source = asked.stream if noise is None else as_source(noise, model.shape, 0)
            return driver(model, asked.x, noise=source, callback=callback, **options)

    def model(
        self,
        /,
        batch: int = 1,
        *,
        shape: Sequence[int] | None = None,
        plan: StepPlan | None = None,
        **conditions: Any,
    ) -> NetworkModel:
        """Return the network as model(x, t), with `label`, `guidance`, `conditions` and `negative` as in `sample`.

        With a `plan`, guidance goes by its calls, of which `model.take_call` says the next.
        Times and predictions are the network's own; the model may be used as long as the pipeline is open, by one
        thread at a time and not within a run.

        >>> import numpy as np
        >>> from dpmrt.runtime import load
        >>> with load("digits") as pipeline:
        ...     model = pipeline.model(2, label=[3, 8], guidance=2.0)
        ...     model(np.zeros(model.shape, np.float32), 999).shape
        (2, 1, 16, 16)
        """
        if unknown := sorted(set(conditions) - set(_CONDITIONS)):
            raise OptionError(
                "the model takes no such argument", got=", ".join(unknown), expected=", ".join(_CONDITIONS)
            )
        chosen = self.sample_shape(None, shape)
        settled = check_conditions(self.bundle, check_batch(batch, chosen), chosen, **conditions)
        with self._held.turn():
            return NetworkModel(self.bundle, self._held.backend(), (batch, *chosen), settled, plan)

    def classifier_gradient(self, x: NDArray[Any], t: float | NDArray[Any], label: Labels) -> NDArray[np.float32]:
        """Return the gradient of log p(label | x) with respect to `x`, (batch, *shape), noised to the time `t`.

        Time and label are one for all, or one a sample. The classifier is opened on first use, for bundles that have
        one.
        """
        with self._held.lock:
            return self._held.classifier().gradient(x, t, label)

    def log_likelihood(
        self,
        /,
        x: NDArray[Any],
        *,
        label: Labels = None,
        conditions: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        **options: Any,
    ) -> Likelihood:
        """Return the exact log-likelihood of the data `x`, (batch, *shape), given a label or conditions, or none.

        The bundle needs a vector-Jacobian graph (`dpmrt export --vjp`). `options` are those of the ODE, as `method`,
        `rtol`, `atol`, `variable` and `max_calls`, and of `runtime.likelihood.likelihood_of`: `probes`, `probe`,
        `seed`, `levels`, `dequantize` and `start`.
        """
        # Only asked for here: sampling need not wait for it.
        from dpmrt.runtime.bundle_likelihood import bundle_likelihood

        with self._held.turn():
            return bundle_likelihood(self.bundle, self._held.product(), x, label, conditions, callback, options)

    def refit(self, weights: str | Path) -> None:
        """Put other weights of the same network into a built engine, from .onnx or .safetensors, without a rebuild.

        `load(bundle, engine="tensorrt", refit=weights)` does it at once. The engine has to be built with --refit.
        """
        with self._held.lock:
            backend = self._held.backend()
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
        return sample_shape(self.bundle, x_T, shape)

    def close(self) -> None:
        """Let go of the network and of the buffers."""
        self._held.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
