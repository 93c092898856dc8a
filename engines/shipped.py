"""Where the bundles that come with dpmrt lie."""

from __future__ import annotations

from pathlib import Path

from dpmrt.errors import OptionError

_HERE = Path(__file__).resolve().parent


def shipped_bundle(name: str = "digits") -> Path:
    """Return the folder of a bundle that ships with dpmrt.

    >>> shipped_bundle("digits").name
    'digits'
    """
    known = sorted(folder.name for folder in _HERE.iterdir() if (folder / "dpmrt.json").is_file())
    if name not in known:
        raise OptionError("no bundle of this name ships with dpmrt", got=name, expected=", ".join(known) or "none")
    return _HERE / name


def is_shipped(bundle: Path) -> bool:
    """Return whether a folder is a bundle that ships with dpmrt, and not a copy of one.

    >>> is_shipped(shipped_bundle("digits"))
    True
    """
    return Path(bundle).resolve().parent == _HERE and (Path(bundle) / "dpmrt.json").is_file()
