"""Asking everything, each question guarded, so that what is broken is told and breaks nothing else."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from dpmrt import __version__
from dpmrt.errors import DpmrtError
from dpmrt.runtime.doctor.child import ask
from dpmrt.runtime.doctor.needs import NEEDS, PLUGIN, missing
from dpmrt.runtime.doctor.schema import VERSION, BuiltEngine, DoctorReport, EngineState, Library, System
from dpmrt.runtime.machine import installed, memory_bytes, processor, system, usable_cores

T = TypeVar("T")
#: asked in a process of their own
_PROBED = ("numpy", "onnxruntime", "cupy", "tensorrt", "tensorrt_rtx", "openvino")
#: looked up only, as importing them takes seconds and sampling needs none of them
_LISTED = (PLUGIN, "torch", "diffusers", "onnx")
#: opened where no bundle is named
_SHIPPED = "digits"


def examine(bundle: str | Path | None = None) -> DoctorReport:
    """Find out what is here, what can run the bundle, and which of its built engines suit this machine.

    Without a bundle, engines are tried on the one that ships with dpmrt.

        examine("bundles/digits").healthy
    """
    name = str(bundle) if bundle is not None else _SHIPPED
    machine = _system(Path(name))
    with ThreadPoolExecutor(max_workers=2) as pool:
        libraries = {library.name: library for library in pool.map(_probe, _PROBED)}
    libraries |= {package: Library(package, installed([package]).get(package)) for package in _LISTED}
    broken = libraries["numpy"].problem
    # What follows imports NumPy here, which would end this process too.
    engines = _engines() if broken is None else list(NEEDS)
    root, problem = _open(name) if broken is None else (None, f"NumPy cannot be loaded: {broken}")
    built: list[BuiltEngine] = []
    built_problem: str | None = None
    if root is not None and bundle is not None:
        try:
            built = _built(name, libraries)
        except Exception as error:
            built_problem = f"{type(error).__name__}: {error}"
    states = [_state(engine, libraries, machine.gpu_problem, name if root else None) for engine in engines]
    folder = None if root is None else _guarded(lambda: _folder(root), None)
    return DoctorReport(
        format="dpmrt-doctor",
        version=VERSION,
        system=machine,
        libraries=tuple(libraries.values()),
        bundle=name,
        bundle_problem=problem,
        engines=tuple(states),
        built=tuple(built),
        folder=folder,
        built_problem=built_problem,
    )


def _system(bundle: Path) -> System:
    from dpmrt.runtime.gpu import current_gpu, why_no_gpu

    memory = memory_bytes()
    gpu = _guarded(current_gpu, None)
    problem = None if gpu else _guarded(lambda: why_no_gpu() or "none was found", "the driver cannot be asked")
    return System(
        python=platform.python_version(),
        dpmrt=__version__,
        system=system(),
        processor=processor(),
        cores=usable_cores(),
        memory_bytes=memory[0] if memory else None,
        memory_available=memory[1] if memory else None,
        disk_free=_guarded(lambda: shutil.disk_usage(bundle if bundle.is_dir() else Path.cwd()).free, None),
        gpu=str(gpu) if gpu else None,
        gpu_problem=problem,
    )


def _probe(name: str) -> Library:
    """Return what a library is; whether there is one is known without importing it."""
    if not _guarded(lambda: find_spec(name) is not None, False):
        return Library(name, None)
    found = ask(name)
    if isinstance(found, str):
        return Library(name, _guarded(lambda: _package_version(name), None) or "unknown", problem=found)
    facts = {key: str(value) for key, value in found.items() if key != "version"}
    return Library(name, str(found.get("version", "unknown")), facts)


def _package_version(name: str) -> str | None:
    packages = packages_distributions().get(name, [name])
    return next(iter(installed(packages).values()), None)


def _open(name: str) -> tuple[Path | None, str | None]:
    """Return the bundle's folder once its files were checked, or why they do not pass."""
    try:
        from dpmrt.runtime.bundle import open_bundle

        return open_bundle(name).root, None
    except DpmrtError as error:
        return None, str(error)
    except Exception as error:
        # NumPy itself may be broken; this is the command to run then.
        return None, f"{type(error).__name__}: {error}"


def _engines() -> list[str]:
    def known() -> list[str]:
        from dpmrt.runtime.backends import plain_engines

        return [name for name in plain_engines() if name != "auto"]

    return _guarded(known, list(NEEDS))


def _state(engine: str, libraries: dict[str, Library], gpu_problem: str | None, bundle: str | None) -> EngineState:
    need = NEEDS.get(engine)
    lacking = missing(need, libraries, gpu_problem) if need else {}
    if lacking or bundle is None:
        return EngineState(engine, lacking)
    found = ask("opens", bundle, engine)
    return EngineState(engine, {}, not isinstance(found, str), found if isinstance(found, str) else None)


def _built(name: str, libraries: dict[str, Library]) -> list[BuiltEngine]:
    from dpmrt.engines.built import FLAVOURS, Machine, this_platform
    from dpmrt.engines.built import Library as Flavoured
    from dpmrt.runtime.bundle import open_bundle
    from dpmrt.runtime.doctor.built import examine_built
    from dpmrt.runtime.gpu import current_gpu

    opened, gpu = open_bundle(name), _guarded(current_gpu, None)
    known: list[Flavoured | None] = [
        Flavoured(flavour, libraries[flavour].version or "") for flavour in FLAVOURS if libraries[flavour].works
    ]
    name_of, capability = (gpu.name, gpu.compute_capability) if gpu else (None, None)
    machines = [Machine(library, name_of, capability, this_platform()) for library in known or [None]]
    return examine_built(opened.root, opened.manifest, machines, name)


def _folder(root: Path) -> str:
    from dpmrt.engines.built import engines_folder

    return str(engines_folder(root))


def _guarded(question: Callable[[], T], otherwise: T) -> T:
    try:
        return question()
    except Exception:
        return otherwise
