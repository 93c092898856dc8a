"""Imports point one way, and the sampling path loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "onnx", "onnxscript", "scipy", "diffusers", "sklearn", "matplotlib", "safetensors"}
HEAVY |= {"tensorrt", "tensorrt_rtx", "cupy"}
#: draws, when asked to, with what `dpmrt[viz]` installs
CHARTS = "runtime/charts.py"
#: solves differential equations, when asked to, with what `dpmrt[ode]` installs
ODE = "runtime/ode/integrate.py"
LAZY = {(CHARTS, "matplotlib.figure"), (ODE, "scipy.integrate"), (ODE, "scipy.sparse")}
STDLIB = set(sys.stdlib_module_names)

#: what each folder may import, beside the standard library and itself
ALLOWED = {
    "dpmrt": {"dpmrt.errors"},
    "solvers_np": {"numpy", "dpmrt.errors", "dpmrt.files"},
    "engines": {"numpy", "msgspec", "dpmrt.errors", "dpmrt.files"},
    "runtime": {
        "numpy",
        "msgspec",
        "click",
        "rich",
        "PIL",
        "onnxruntime",
        "dpmrt",
        "dpmrt.errors",
        "dpmrt.files",
        "dpmrt.engines",
        "dpmrt.solvers_np",
    },
}


#: `python -m dpmrt`, which nothing else imports
ENTRY = ("dpmrt/__main__.py", "dpmrt.runtime.__main__")


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.lineno, node.module


def _allowed(module: str, folder: str) -> bool:
    top = module.split(".")[0]
    own = f"dpmrt.{folder}"
    if top in STDLIB or module == own or module.startswith(own + "."):
        return True
    return any(module == known or (known != "dpmrt" and module.startswith(known + ".")) for known in ALLOWED[folder])


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_the_design_allows(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in files
        for line, module in _imports(path)
        if not _allowed(module, folder) and (str(path.relative_to(ROOT)), module) not in {*LAZY, ENTRY}
    ]
    assert wrong == []


def test_only_export_imports_torch() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {module}"
        for folder in ALLOWED
        for path in (ROOT / folder).rglob("*.py")
        for _, module in _imports(path)
        if module.split(".")[0] in HEAVY or module.startswith("dpmrt.export")
    }
    assert found == {f"{path}: {module}" for path, module in LAZY}


def _loaded(code: str, *arguments: object) -> set[str]:
    tail = "\nimport sys\nprint(*sorted({name.split('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", code + tail, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split())


def test_writing_files_loads_nothing_but_the_standard_library() -> None:
    assert not (HEAVY | {"numpy", "msgspec", "click", "rich"}) & _loaded("import dpmrt.files")


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    assert not HEAVY & _loaded("import dpmrt.runtime\ndpmrt.runtime.load")


def test_sampling_loads_nothing_heavy(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests/runtime"))
    try:
        from tiny_bundles import write_bundle
    finally:
        sys.path.pop(0)
    code = (
        "import sys, dpmrt.runtime\n"
        "with dpmrt.runtime.load(sys.argv[1]) as pipeline:\n"
        "    pipeline.sample(2, label=1, steps=3)\n"
    )
    loaded = _loaded(code, write_bundle(tmp_path / "bundle", labels=True))
    assert "onnxruntime" in loaded
    assert not (HEAVY | {"PIL", "rich", "click"}) & loaded


def test_the_list_of_commands_loads_nothing_heavy() -> None:
    code = "import dpmrt.runtime.cli as cli\ntry:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass"
    assert not (HEAVY | {"numpy", "onnxruntime", "PIL", "rich"}) & _loaded(code)


def test_calibrating_loads_nothing_heavy(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests/runtime"))
    try:
        from tiny_bundles import write_bundle
    finally:
        sys.path.pop(0)
    code = (
        "import sys, numpy as np, dpmrt.runtime\n"
        "dpmrt.runtime.calibrate(sys.argv[1], np.zeros((8, 1, 8, 8)), samples=8, steps=5)\n"
        "with dpmrt.runtime.load(sys.argv[1]) as pipeline:\n"
        "    pipeline.sample(2, solver='ddpm', steps=3, variance='analytic')\n"
    )
    assert not HEAVY & _loaded(code, write_bundle(tmp_path / "bundle"))
