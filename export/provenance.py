"""When and with what something was made, as bundles record it."""

from __future__ import annotations

import contextlib
import datetime
import os
from importlib.metadata import PackageNotFoundError, version

import dpmrt
from dpmrt.errors import OptionError


def utc_date() -> str:
    """Return the time now, or that of SOURCE_DATE_EPOCH where a build must be reproducible."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    utc = datetime.timezone.utc
    try:
        when = datetime.datetime.now(utc) if epoch is None else datetime.datetime.fromtimestamp(int(epoch), utc)
    except (ValueError, OverflowError, OSError):
        raise OptionError(
            "SOURCE_DATE_EPOCH is no time", got=epoch, expected="seconds since 1970", fix="unset SOURCE_DATE_EPOCH"
        ) from None
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def library_versions(*names: str) -> dict[str, str]:
    """Return the version of dpmrt and of those of the named distributions that are installed."""
    versions = {"dpmrt": dpmrt.__version__}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
