"""Reading a diffusers UNet from a folder. Nothing is unpickled, nothing downloaded, no weight made up."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import diffusers
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as safetensors_bytes

from dpmrt.engines import hash_file
from dpmrt.errors import ExportError, OptionError
from dpmrt.export.interfaces import INTERFACES, Interface, Sizes, interface_of
from dpmrt.export.schedulers import SCHEDULER_NAME
from dpmrt.export.weights import WeightFiles, check_weights, empty_parameters, fill, widening

SUPPORTED = tuple(INTERFACES)
#: parameters above which a network is not brought into memory whole to be compared with
LEAN_ABOVE = 200_000_000
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_SHOWN = 8
_LAYOUT = f"config.json and {WEIGHTS_NAME}, either here or in unet/"
_BAD_CONFIG = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Training(msgspec.Struct, frozen=True):
    """The fields of a checkpoint's training.json that a bundle needs."""

    num_classes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    null_class: Annotated[int, msgspec.Meta(ge=0)] | None = None
    data_range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.data_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"data_range = [{low}, {high}]")


@dataclass
class Source:
    """A network that can be exported, and where it came from; `folder` is None for a network held in memory.

    `skeleton` is the network with parameters that hold nothing until `model` is asked for; `weights` reads them one
    at a time.
    """

    skeleton: Any
    kind: str
    config: Mapping[str, Any]
    declared: Interface
    weights: Mapping[str, torch.Tensor]
    weights_sha256: str
    folder: Path | None = None
    subfolder: str | None = None
    scheduler: Path | None = None
    training: Training | None = None
    sizes: Sizes | None = None
    one_time: bool = False

    @functools.cached_property
    def interface(self) -> Interface:
        """The network's interface, with its axes fixed or open as asked."""
        interface = self.declared.settle(self.sizes)
        return interface.with_one_time() if self.one_time else interface

    @functools.cached_property
    def model(self) -> Any:
        """The network in fp32 with its weights."""
        return fill(self.skeleton, self.weights, torch.float32)

    def predict(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return what the network in fp32 gives for one tensor a role."""
        return torch.from_numpy(self.run(self.interface.call, tensors))

    def run(
        self, forward: Callable[[Any, Mapping[str, torch.Tensor]], torch.Tensor], tensors: Mapping[str, torch.Tensor]
    ) -> NDArray[np.float32]:
        """Return what `forward` gives, in fp32; a large network stays on disk and is widened layer by layer."""
        (array,) = self.run_each(forward, [tensors])
        return array

    def run_each(
        self,
        forward: Callable[[Any, Mapping[str, torch.Tensor]], torch.Tensor],
        cases: Iterable[Mapping[str, torch.Tensor]],
    ) -> list[NDArray[np.float32]]:
        """Return what `run` does for each of several inputs, with the weights read once."""
        lean = "model" not in self.__dict__ and self.parameters >= LEAN_ABOVE
        lent = widening(self.skeleton, self.weights) if lean else contextlib.nullcontext(self.model)
        # Not inference mode: the weights that it makes could not be differentiated through afterwards.
        with torch.no_grad(), lent as model:
            return [forward(model, tensors).float().numpy() for tensors in cases]

    @functools.cached_property
    def parameters(self) -> int:
        """How many parameters the network has."""
        return sum(tensor.numel() for tensor in self.skeleton.parameters())

    def shaped(self, sizes: Sizes | None = None, *, one_time: bool = False) -> Source:
        """Return the source with its axes fixed or open as asked."""
        return dataclasses.replace(self, sizes=sizes, one_time=one_time)


def load_source(path: str | Path, subfolder: str | None = None) -> Source:
    """Load a UNet folder, a pipeline folder with unet/ and scheduler/, or a checkpoint of the reference model."""
    folder = Path(path)
    if not folder.is_dir():
        raise ExportError(
            "no model folder here",
            got=folder,
            expected=f"a folder with {_LAYOUT}",
            fix="download the model first, and pass the path of its folder",
        )
    try:
        return _load(folder, subfolder)
    except OSError as error:
        raise ExportError("the model cannot be read", got=error, expected="files that this user may read") from error


def _load(folder: Path, subfolder: str | None) -> Source:
    unet = _unet_folder(folder, subfolder)
    config = _read_config(unet / "config.json")
    files = weight_files(unet)
    skeleton = _build(config, unet)
    interface = interface_of(config)
    weights = WeightFiles(files)
    check_weights(skeleton, weights, unet / "config.json")
    return Source(
        skeleton=skeleton.eval().requires_grad_(False),
        kind=config["_class_name"],
        config=config,
        declared=interface,
        weights=weights,
        weights_sha256=hash_weights(files),
        folder=folder,
        subfolder=subfolder,
        scheduler=find_scheduler(folder),
        training=_read_training(folder / "training.json"),
    )


def source_of_model(model: Any) -> Source:
    """Wrap a diffusers network that is already in memory; its hash is that of the file it would be saved as."""
    name = type(model).__name__
    if name not in SUPPORTED:
        raise _unsupported(name, "the model passed in")
    config = {"_class_name": name, "_diffusers_version": diffusers.__version__, **model.config}
    digest = hashlib.sha256(safetensors_bytes(model.state_dict(), metadata={"format": "pt"})).hexdigest()
    with _quiet_diffusers():
        own = copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)
    return Source(own, name, config, interface_of(config), own.state_dict(), digest)


def find_scheduler(path: Path) -> Path | None:
    """Return the scheduler config at `path`: the file itself, or in the folder, or in its scheduler/."""
    candidates = (path, path / SCHEDULER_NAME, path / "scheduler" / SCHEDULER_NAME)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; anything else is an ExportError that names the file."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path.name} cannot be read", got=error, expected="a readable file") from None
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path.name} is not JSON", got=f"{path}: {error}", expected="a JSON object") from None
    if not isinstance(content, dict):
        raise ExportError(f"{path.name} is no JSON object", got=f"{path}: {type(content).__name__}", expected="{...}")
    return content


def weight_files(unet: Path) -> list[Path]:
    """Return the safetensors files that hold a UNet's weights, shards in name order."""
    index = unet / f"{WEIGHTS_NAME}.index.json"
    if index.is_file():
        return _shards(index)
    if (unet / WEIGHTS_NAME).is_file():
        return [unet / WEIGHTS_NAME]
    others = sorted(path.name for path in unet.iterdir() if path.suffix in (*_PICKLES, ".safetensors"))
    pickled = [name for name in others if name.endswith(_PICKLES)]
    if pickled:
        raise ExportError(
            "the weights are pickled, and dpmrt never unpickles",
            got=f"{', '.join(pickled)} in {unet}",
            expected=WEIGHTS_NAME,
            fix="convert it where you trust the file: model.save_pretrained(folder, safe_serialization=True)",
        )
    raise ExportError(
        "the weights are missing",
        got=f"{', '.join(others) or 'no weight file'} in {unet}",
        expected=WEIGHTS_NAME,
        fix="save the model with model.save_pretrained(folder, safe_serialization=True)",
    )


def hash_weights(files: list[Path]) -> str:
    """Return the SHA-256 of one weight file, or of the list of the shards' names and hashes."""
    if len(files) == 1:
        return hash_file(files[0])
    listing = "".join(f"{hash_file(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _unet_folder(folder: Path, subfolder: str | None) -> Path:
    if subfolder is not None:
        # It is recorded in the manifest, where a path of this machine has no business.
        outside = Path(subfolder).is_absolute() or ".." in Path(subfolder).parts
        if outside or not (folder / subfolder).is_dir():
            raise OptionError(
                "no such subfolder", got=folder / subfolder, expected=f"a folder within the source, with {_LAYOUT}"
            )
        candidates = [folder / subfolder]
    else:
        candidates = [folder / "unet", folder]
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    names = sorted(path.name for path in folder.iterdir())
    present = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    raise ExportError(
        "config.json is missing",
        got=f"{present or 'nothing'} in {folder}",
        expected=_LAYOUT,
        fix="pass the folder that model.save_pretrained or pipeline.save_pretrained wrote",
    )


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json_object(path)
    name = config.get("_class_name")
    if name not in SUPPORTED:
        raise _unsupported(name, path)
    # Keys that the file leaves out have a default in the class, which the signature must see as well.
    defaults = {
        key: parameter.default
        for key, parameter in _parameters(diffusers_class(name)).items()
        if parameter.default is not parameter.empty
    }
    return {**defaults, **config}


def diffusers_class(name: str) -> Any:
    """Return a network class of diffusers, which does not list all of them at its top."""
    from diffusers.models import unets

    return getattr(diffusers, name, None) or getattr(unets, name)


def _parameters(cls: type) -> Mapping[str, Any]:
    return inspect.signature(cls).parameters


def _unsupported(name: object, where: object) -> ExportError:
    return ExportError(
        "this kind of model cannot be exported yet",
        got=f"_class_name {name!r} in {where}",
        expected=" or ".join(SUPPORTED),
        fix="pass the folder of the pipeline's UNet",
    )


def _build(config: Mapping[str, Any], unet: Path) -> Any:
    try:
        # The random weights that the class starts with are all replaced; the caller's random state is not.
        with torch.random.fork_rng(devices=[]), empty_parameters(), _quiet_diffusers():
            return diffusers_class(config["_class_name"]).from_config(dict(config))
    except _BAD_CONFIG as error:
        raise ExportError(
            "config.json describes no network that diffusers can make",
            got=f"{unet / 'config.json'}: {type(error).__name__}: {error}",
            expected=f"the config of a {config['_class_name']} of diffusers {diffusers.__version__}",
        ) from error


@contextlib.contextmanager
def _quiet_diffusers() -> Iterator[None]:
    level = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers.logging.set_verbosity(level)


def _shards(index: Path) -> list[Path]:
    names = read_json_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()) or not names:
        raise ExportError(f"{index.name} has no weight_map", got=index, expected="tensor names, each with its file")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ExportError(
                f"{index.name} names a file that is no shard",
                got=repr(name),
                expected="a .safetensors file beside it",
            )
        if not (index.parent / name).is_file():
            raise ExportError(
                "a shard of the weights is missing",
                got=f"no {name} in {index.parent}",
                expected=", ".join(files),
                fix="download the model again",
            )
    return [index.parent / name for name in files]


def _read_training(path: Path) -> Training | None:
    if not path.is_file():
        return None
    try:
        return msgspec.convert(read_json_object(path), Training)
    except msgspec.ValidationError as error:
        raise ExportError(
            "training.json does not fit",
            got=f"{path}: {error}",
            expected="num_classes from 1, null_class from 0, data_range as [low, high] with low < high",
        ) from None
