"""The examples in README and docs, and in the docstrings, do what they say."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PACKAGES = ("dpmrt", "dpmrt.solvers_np", "dpmrt.engines", "dpmrt.runtime", "dpmrt.export")


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language, but those whose fence says "not run"."""
    return [
        body for name, info, body in FENCE.findall(page.read_text()) if name == language and "not run" not in info
    ]


def pages(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "engines" / "checkpoints", tmp_path / "engines" / "checkpoints")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", pages("python"), ids=lambda page: page.name)
def test_python_examples_run(page: Path, workplace: Path) -> None:
    names: dict[str, object] = {"__name__": "example"}
    for number, body in enumerate(blocks(page, "python"), 1):
        exec(compile(body, f"{page.name}, example {number}", "exec"), names)


@pytest.mark.parametrize("page", pages("sh"), ids=lambda page: page.name)
def test_shell_examples_run(page: Path, workplace: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for body in blocks(page, "sh"):
        done = subprocess.run(
            ["bash", "-euc", body], cwd=workplace, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"


def modules() -> list[str]:
    found = []
    for package in PACKAGES:
        root = importlib.import_module(package)
        found += [
            package,
            *(m.name for m in pkgutil.walk_packages(root.__path__, package + ".") if "__main__" not in m.name),
        ]
    # An installed dpmrt holds its packages in one folder, a working copy does not.
    return sorted(set(found))


@pytest.mark.parametrize("name", modules())
def test_docstring_examples_run(name: str, workplace: Path) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", FENCE.sub("", page.read_text())):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
