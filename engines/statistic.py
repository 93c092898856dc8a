"""The statistic that the analytic variance is made of, as a file of the bundle: `dpmrt calibrate` measures it."""

from __future__ import annotations

import hashlib
import itertools
import math
from pathlib import Path
from typing import Literal

import msgspec

from dpmrt.engines.json_file import write_json
from dpmrt.engines.manifest import FORMAT_VERSION, record_file, write_manifest
from dpmrt.engines.schema import Manifest
from dpmrt.errors import BundleError

STATISTICS = "statistics"
_PREFIX = "eps_power-"
_FIX = "measure it again: dpmrt calibrate BUNDLE --data DATA"


class EpsPower(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mean of eps(x_t, t)^2 over data, noise and entries, at `times`, and the standard error of each mean.

    `data` names the data, of which the first `samples` in the order of `seed` were taken; `conditions` says of each
    condition of the network what it was, a number or a hash.
    """

    format: Literal["dpmrt-eps-power"]
    version: Literal[1]
    times: tuple[float, ...]
    power: tuple[float, ...]
    error: tuple[float, ...]
    samples: int
    batch: int
    seed: int
    data: str
    data_sha256: str
    network_sha256: str
    engine: str
    conditions: dict[str, str]
    dpmrt: str


def read_eps_power(bundle: Path, manifest: Manifest) -> EpsPower | None:
    """Return the statistic that a bundle holds, or None; the manifest's reader has looked at the file's hash.

    Raises BundleError for a file that does not follow the schema, or that is of another network.
    """
    if manifest.eps_power is None:
        return None
    try:
        found = msgspec.json.decode((Path(bundle) / manifest.eps_power).read_bytes(), type=EpsPower)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise BundleError(
            f"{manifest.eps_power} cannot be read", got=error, expected="what `dpmrt calibrate` writes", fix=_FIX
        ) from None
    _check(manifest.eps_power, found)
    of_now = manifest.files[manifest.unet.path].sha256
    if found.network_sha256 != of_now:
        raise BundleError(
            f"{manifest.eps_power} was measured with another network",
            got=f"SHA-256 {found.network_sha256}",
            expected=f"SHA-256 {of_now}, of {manifest.unet.path}",
            fix=_FIX,
        )
    return found


def store_eps_power(bundle: Path, manifest: Manifest, statistic: EpsPower) -> Manifest:
    """Put a statistic into a bundle, in place of an older one, and return the manifest that says so.

    The file is named by what it holds, and the manifest is replaced last: whenever this stops, the bundle is whole.
    """
    _check("the statistic", statistic)
    digest = hashlib.sha256(msgspec.json.encode(statistic)).hexdigest()
    name = f"{STATISTICS}/{_PREFIX}{digest[:12]}.json"
    folder = Path(bundle) / STATISTICS
    folder.mkdir(exist_ok=True)
    write_json(Path(bundle) / name, statistic)
    files = {path: record for path, record in manifest.files.items() if path != manifest.eps_power}
    made = msgspec.structs.replace(
        manifest,
        version=FORMAT_VERSION,
        eps_power=name,
        files={**files, name: record_file(Path(bundle) / name)},
        provenance={
            **manifest.provenance,
            "calibration_data_sha256": statistic.data_sha256,
            "calibration_samples": statistic.samples,
            "calibration_seed": statistic.seed,
        },
    )
    write_manifest(Path(bundle), made)
    for path in folder.glob(f"{_PREFIX}*.json"):
        if path.name != Path(name).name:
            path.unlink(missing_ok=True)
    return made


def _check(name: str, statistic: EpsPower) -> None:
    columns = (statistic.times, statistic.power, statistic.error)
    numbers = itertools.chain(*columns)
    rising = all(a < b for a, b in itertools.pairwise(statistic.times))
    whole = len({len(column) for column in columns}) == 1 and len(statistic.times) > 0 and rising
    if not whole or not all(map(math.isfinite, numbers)) or min(*statistic.power, *statistic.error) < 0:
        raise BundleError(
            f"{name} is no row of means of squares",
            got=f"{len(statistic.times)} times, {len(statistic.power)} means, {len(statistic.error)} errors",
            expected="as many of each, finite, the times rising and none of the others below 0",
            fix=_FIX,
        )
