"""Torch and diffusers beside a bundle: the same network, steps, scheduler, conditions and noise, to be timed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpmrt.engines import NEGATIVE
from dpmrt.errors import BackendError, VerificationError
from dpmrt.export.certificate.limits import limits_of
from dpmrt.export.certificate.measures import peak_of, rms
from dpmrt.export.certificate.reference import find_source
from dpmrt.export.provenance import library_versions
from dpmrt.export.schedulers import scheduler_class
from dpmrt.export.sources import Source
from dpmrt.export.torch_sampler import Condition, step_predictor
from dpmrt.runtime.bench.request import Request
from dpmrt.runtime.bench.schema import Comparison, Measured
from dpmrt.runtime.bundle import OpenBundle

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def open_peer(bundle: OpenBundle, *, source: str | Path | None, compiled: bool, threads: int | None) -> TorchPeer:
    """Open the torch network that a bundle came from: at `source`, or where the manifest says."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        found = find_source(bundle.root, bundle.manifest, source)
    except VerificationError as error:
        # Its advice is for `dpmrt verify`, whose option has another name.
        fix = "pass --source FOLDER (source=... in Python) with the folder of the network"
        raise VerificationError(error.what, got=error.got, expected=error.expected, fix=fix) from error
    return TorchPeer(bundle, found, compiled=compiled)


class TorchPeer:
    """The network in torch, sampled as a diffusers pipeline does.

    It computes in float32 on the CPU, as its half precisions are slow there, and in the bundle's precision on a GPU.
    """

    def __init__(self, bundle: OpenBundle, source: Source, *, compiled: bool) -> None:
        self._bundle, self._source, self._compiled = bundle, source, compiled
        self.scheduler = str(bundle.scheduler_config["_class_name"])
        self.move("cpu")

    def move(self, device: str) -> None:
        """Compute on this kind of device from now on: `cpu` or `cuda`."""
        if device == "cuda" and not torch.cuda.is_available():
            raise BackendError(
                "torch sees no GPU to be timed on beside the engine's",
                got=f"torch {torch.__version__}",
                expected="a build of torch for CUDA",
                fix="install one, or leave --against out",
            )
        kind = self._bundle.manifest.unet.precision.kind if device == "cuda" else "fp32"
        self.device, self.precision = device, kind
        self._dtype = _HALVES.get(kind, torch.float32)
        self._source.model.to(device, self._dtype)
        network: Any = self._source.model
        if self._compiled:
            network = torch.compile(network)
        self._running = _Placed(self._source, network)

    def subject(self, request: Request, *, steps: int) -> TorchSubject:
        """Return what takes the same steps from the same noise with the same conditions."""
        condition = self._condition(request)
        predict = step_predictor(self._running, condition)  # type: ignore[arg-type]
        try:
            return TorchSubject(self, predict, request, steps)
        except Exception as error:
            if not self._compiled:
                raise
            raise BackendError(
                "torch.compile fails on this network here",
                got=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}",
                expected="a compiled network",
                fix="leave --compile out",
            ) from error

    def compare(
        self, engine: str, ours: tuple[Measured, NDArray[Any]], theirs: tuple[Measured, NDArray[Any]]
    ) -> Comparison:
        """Hold an engine's times and results against torch's."""
        (mine, a), (peer, b) = ours, theirs
        manifest = self._bundle.manifest
        difference = a.astype(np.float64) - b
        scale, error = rms(b), rms(difference)
        width = peak_of(manifest.data_range, b).width
        psnr = 20 * math.log10(width / error) if error and width else None
        drift = error / scale if error else 0.0
        # Two computations in half precision are each off by themselves; what is fp32 on both sides is not.
        limits = limits_of(manifest.unet.precision.kind)
        agrees = bool(np.isfinite(difference).all())
        agrees = agrees and (limits.drift is None or drift <= limits.drift)
        agrees = agrees and (limits.psnr is None or psnr is None or psnr >= limits.psnr)
        return Comparison(
            engine=engine,
            batch=mine.batch,
            call_ratio=peer.call.p50 / mine.call.p50,
            sample_ratio=peer.sample.p50 / mine.sample.p50,
            max_difference=float(np.abs(difference).max()),
            drift=drift,
            psnr=psnr,
            agrees=agrees,
        )

    def versions(self) -> dict[str, str]:
        """Return the versions of torch and diffusers."""
        return dict(library_versions("torch", "diffusers"))

    @property
    def config(self) -> Mapping[str, Any]:
        """The scheduler's config."""
        return self._bundle.scheduler_config

    def place(self, values: torch.Tensor) -> torch.Tensor:
        """Return a tensor where the network is, and floats in its precision."""
        return values.to(self.device, self._dtype if values.is_floating_point() else None)

    def _condition(self, request: Request) -> Condition:
        """Return the conditions that the pipeline settled on, in torch's terms."""
        settled = request.settled
        values = {role: _widened(array) for role, array in settled.values.items()}
        wanted = {role: array for role, array in values.items() if not role.startswith(NEGATIVE)}
        if self._bundle.manifest.unet.folded_guidance:
            null = {role: values.get(NEGATIVE + role, array) for role, array in wanted.items()}
            return Condition(wanted, null, settled.scale)
        null = {role: _widened(array) for role, array in settled.null.items()}
        return Condition(wanted, null, settled.scale if settled.guided else None)


class TorchSubject:
    """The loop of a diffusers pipeline, with the network's calls and the scheduler's steps and no more."""

    def __init__(self, peer: TorchPeer, predict: Predict, request: Request, steps: int) -> None:
        self._peer, self._predict, self._request, self._steps = peer, predict, request, steps
        self._scheduler = scheduler_class(peer.config).from_config(dict(peer.config))
        self._scheduler.set_timesteps(steps)
        takes = inspect.signature(self._scheduler.step).parameters
        self._generator = torch.Generator()
        self._options = {"generator": self._generator} if "generator" in takes else {}
        self._scale = getattr(self._scheduler, "scale_model_input", lambda sample, t: sample)
        self._shape = (request.batch, *request.shape)
        self._x = peer.place(torch.randn(self._shape, generator=torch.Generator().manual_seed(0)))
        self._t = self._scheduler.timesteps[0]
        #: what was sampled
        self.result = self.sample()

    @property
    def calls(self) -> int:
        """Return how many network calls a sample takes."""
        return len(self._scheduler.timesteps)

    def call(self) -> None:
        """Run the network once."""
        with torch.inference_mode():
            self._predict(self._x, self._t)

    def sample(self) -> NDArray[np.float32]:
        """Draw the samples."""
        self._scheduler.set_timesteps(self._steps)
        self._generator.manual_seed(int(self._request.arguments["seed"]))
        with torch.inference_mode():
            x = self._peer.place(torch.randn(self._shape, generator=self._generator))
            x = x * getattr(self._scheduler, "init_noise_sigma", 1.0)  # flow-matching schedulers have none
            for t in self._scheduler.timesteps:
                x = self._scheduler.step(self._predict(self._scale(x, t), t), t, x, **self._options).prev_sample
        samples: NDArray[np.float32] = x.float().cpu().numpy()
        return samples

    def synchronise(self) -> None:
        """Wait for the GPU, where there is one."""
        if self._peer.device == "cuda":
            torch.cuda.synchronize()


class _Placed:
    """A source whose network is wherever the peer put it; what `step_predictor` knows of it is all there is."""

    def __init__(self, source: Source, network: Any) -> None:
        self.interface = source.interface
        self._network = network
        first = next(source.model.parameters())
        self._device, self._dtype = first.device, first.dtype

    def predict(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what the network gives for one tensor a role."""
        placed = {
            role: tensor.to(self._device, self._dtype if tensor.is_floating_point() and role != "timestep" else None)
            for role, tensor in tensors.items()
        }
        return self.interface.call(self._network, placed)


def _widened(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype.kind == "f" else np.ascontiguousarray(array)
