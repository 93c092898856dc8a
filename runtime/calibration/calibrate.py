"""`calibrate`: the mean of eps(x_t, t)^2 of a bundle's network over data, stored in the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpmrt import __version__
from dpmrt.engines import MANIFEST_NAME, EpsPower, Manifest, is_shipped, read_manifest, store_eps_power
from dpmrt.errors import BundleError, OptionError
from dpmrt.files import check_writable
from dpmrt.runtime.backends import Backend, choose_engine
from dpmrt.runtime.bundle import OpenBundle, open_bundle
from dpmrt.runtime.calibration.asked import Asked
from dpmrt.runtime.calibration.checkpoint import Checkpoint, Settings, read_checkpoint
from dpmrt.runtime.calibration.data import Array, choose_data
from dpmrt.runtime.calibration.estimate import Progress, RowModel, estimate
from dpmrt.runtime.calibration.times import choose_times
from dpmrt.runtime.loading import load
from dpmrt.runtime.pipeline import Pipeline
from dpmrt.runtime.request import Labels, check_whole
from dpmrt.solvers_np import schedule_from_diffusers

if TYPE_CHECKING:
    from dpmrt.runtime.drivers import NetworkModel

#: as many samples as give an error far below that of the network; the paper finds a few dozen enough
SAMPLES = 256
#: fewer say too little about the error
_FEWEST = 8
_MOST_SEED = 2**63 - 1
_KEPT_MODELS = 8


def calibrate(
    bundle: str | Path,
    data: str | Path | Array,
    *,
    samples: int = SAMPLES,
    batch: int = 64,
    steps: int | None = None,
    times: Sequence[float] | None = None,
    seed: int = 0,
    label: Labels = None,
    conditions: Mapping[str, Any] | None = None,
    engine: str | Backend = "auto",
    checkpoint: str | Path | None = None,
    restart: bool = False,
    callback: Progress | None = None,
    **options: Any,
) -> EpsPower:
    """Measure the statistic of the analytic variance over `samples` of the data, and store it in the bundle.

    It is measured at every training time, at `steps` of them, or at `times`. `label` and `conditions` are one for
    all or one a datum; without a label it is that of no class. What is known so far is kept in the file
    `checkpoint`, beside the bundle unless given, from which the next call with the same arguments goes on, to the
    same bits; `restart` begins anew. `callback` is called with the network calls made and those to make; `options`
    are the engine's own. The bundle is as it was until all is known.
    """
    opened = open_bundle(bundle)
    _check_bundle(opened)
    manifest = opened.manifest
    samples = check_whole("samples", samples, _FEWEST)
    batch, seed = min(check_whole("batch", batch, 1), samples), check_whole("seed", seed, 0, _MOST_SEED)
    schedule = schedule_from_diffusers(opened.scheduler_config)
    at = choose_times(schedule, steps, times)
    chosen = choose_data(data, manifest.unet.sample_shape, manifest.data_range, samples=samples, seed=seed)
    asked = Asked(chosen, label, conditions)
    settings = Settings(
        times=at,
        samples=samples,
        batch=batch,
        seed=seed,
        data_sha256=chosen.digest,
        network_sha256=manifest.files[manifest.unet.path].sha256,
        scheduler_sha256=manifest.files[manifest.scheduler].sha256,
        engine=_engine_name(opened, engine, options),
        conditions=asked.described(),
    )
    path = _checkpoint_path(opened, checkpoint)
    state = Checkpoint.fresh(settings) if restart else read_checkpoint(path, settings)
    with load(bundle, engine, **options) as pipeline:
        shape = pipeline.sample_shape(shape=chosen.samples.shape[1:])
        asked.check(opened, samples, shape)
        done = estimate(
            _models(pipeline, asked, shape),
            chosen.samples,
            settings,
            schedule=schedule,
            prediction=manifest.prediction,
            state=state,
            path=path,
            callback=callback,
        )
    statistic = EpsPower(
        format="dpmrt-eps-power",
        version=1,
        times=at,
        power=done.power,
        error=done.error,
        samples=samples,
        batch=batch,
        seed=seed,
        data=chosen.name,
        data_sha256=chosen.digest,
        network_sha256=settings.network_sha256,
        engine=settings.engine,
        conditions=settings.conditions,
        dpmrt=__version__,
    )
    store_eps_power(opened.root, _unchanged(opened), statistic)
    path.unlink(missing_ok=True)
    return statistic


def _check_bundle(bundle: OpenBundle) -> None:
    """Refuse a bundle that cannot hold a statistic."""
    if bundle.inferred:
        raise BundleError(
            "a folder without a manifest cannot hold a statistic",
            got=f"no {MANIFEST_NAME} in {bundle.root}",
            expected="a bundle",
            fix="export one: dpmrt export SOURCE -o BUNDLE",
        )
    if is_shipped(bundle.root):
        raise BundleError(
            "the bundle ships with dpmrt and is left as it is",
            got=bundle.root,
            expected="a bundle of your own",
            fix=f"copy it: cp -r {bundle.root} BUNDLE",
        )
    check_writable(bundle.root / MANIFEST_NAME)


def _checkpoint_path(bundle: OpenBundle, checkpoint: str | Path | None) -> Path:
    root = bundle.root.resolve()
    if checkpoint is None:
        return check_writable(root.with_name(f"{root.name}.calibration.json"))
    if Path(checkpoint).resolve().is_relative_to(root):
        raise OptionError(
            "the checkpoint lies inside the bundle",
            got=checkpoint,
            expected=f"a file outside of {bundle.root}",
            fix="choose another folder",
        )
    return check_writable(checkpoint)


def _unchanged(bundle: OpenBundle) -> Manifest:
    """Return the manifest as it is now, of what was measured."""
    before, now = bundle.manifest, read_manifest(bundle.root, check=False)
    for name in (before.unet.path, before.scheduler):
        if now.files.get(name) != before.files[name]:
            raise BundleError(
                "the bundle was changed while it was measured",
                got=f"another {name}",
                expected=f"SHA-256 {before.files[name].sha256}",
                fix="measure it again: dpmrt calibrate BUNDLE --data DATA --restart",
            )
    return now


def _engine_name(bundle: OpenBundle, engine: str | Backend, options: Mapping[str, Any]) -> str:
    if not isinstance(engine, str):
        return type(engine).__name__
    return choose_engine(bundle.root, bundle.manifest.unet, options).engine if engine == "auto" else engine


def _models(pipeline: Pipeline, asked: Asked, shape: tuple[int, ...]) -> RowModel:
    """Return the network for any of the samples; a few are kept bound."""
    kept: dict[tuple[int, int], NetworkModel] = {}

    def model(x: Array, t: float, rows: slice) -> Array:
        key = (rows.start if asked.varies else 0, len(x))
        if key not in kept:
            if len(kept) >= _KEPT_MODELS:
                kept.pop(next(iter(kept)))
            kept[key] = pipeline.model(len(x), shape=shape, **asked.of(rows))
        return kept[key](x, t)

    return model
