"""Reading a diffusers UNet from a folder. Nothing is unpickled, nothing downloaded, no weight made up."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import diffusers
import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes

from dpmrt.engines import hash_file
from dpmrt.errors import ExportError, OptionError
from dpmrt.export.schedulers import SCHEDULER_NAME
from dpmrt.export.signature import Signature, signature_of

SUPPORTED = ("UNet2DModel", "UNet2DConditionModel")
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"

_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_LAYOUT = f"config.json and {WEIGHTS_NAME}, either here or in unet/"
_BAD_CONFIG = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_OLD_ATTENTION = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


class Training(msgspec.Struct, frozen=True):
    """The fields of a checkpoint's training.json that a bundle needs."""

    num_classes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    null_class: Annotated[int, msgspec.Meta(ge=0)] | None = None
    data_range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.data_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"data_range = [{low}, {high}]")


@dataclass(frozen=True)
class Source:
    """A network that can be exported, and where it came from; `folder` is None for a network held in memory."""

    model: Any
    config: Mapping[str, Any]
    signature: Signature
    weights_sha256: str
    folder: Path | None = None
    subfolder: str | None = None
    scheduler: Path | None = None
    training: Training | None = None
    parameters: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", sum(tensor.numel() for tensor in self.model.parameters()))

    @property
    def kind(self) -> str:
        """Return the name of the diffusers class."""
        return str(self.config["_class_name"])


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
    model = _build(config, unet)
    signature = signature_of(config)
    _load_weights(model, files)
    return Source(
        model=model.eval().requires_grad_(False),
        config=config,
        signature=signature,
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
    own = copy.deepcopy(model).to("cpu", torch.float32).eval().requires_grad_(False)
    return Source(model=own, config=config, signature=signature_of(config), weights_sha256=digest)


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
    present = ", ".join(sorted(path.name for path in folder.iterdir()))
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
        for key, parameter in _parameters(getattr(diffusers, name)).items()
        if parameter.default is not parameter.empty
    }
    return {**defaults, **config}


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
    level = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity_error()
    try:
        # The random weights that the class starts with are all replaced; the caller's random state is not.
        with torch.random.fork_rng(devices=[]):
            return getattr(diffusers, config["_class_name"]).from_config(dict(config))
    except _BAD_CONFIG as error:
        raise ExportError(
            "config.json describes no network that diffusers can make",
            got=f"{unet / 'config.json'}: {type(error).__name__}: {error}",
            expected=f"the config of a {config['_class_name']} of diffusers {diffusers.__version__}",
        ) from error
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


def _load_weights(model: Any, files: list[Path]) -> None:
    found: dict[str, torch.Tensor] = {}
    for path in files:
        for name, tensor in _read_tensors(path).items():
            if name in found:
                raise ExportError("two shards hold the same tensor", got=f"{name}, again in {path.name}")
            found[name] = tensor
    wanted = model.state_dict()
    _modern_names(found, wanted)
    where = files[0].parent
    _refuse("tensors are missing from the weights", wanted.keys() - found.keys(), where)
    _refuse("the weights hold tensors that the network has not", found.keys() - wanted.keys(), where)
    _refuse(
        "tensors have another shape than the config says",
        {
            f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if found[name].shape != wanted[name].shape
        },
        where,
    )
    _refuse(
        "tensors are not of a floating type",
        {f"{name} {tensor.dtype}" for name, tensor in found.items() if not tensor.is_floating_point()},
        where,
    )
    _refuse(
        "tensors hold NaN or infinity", {name for name, tensor in found.items() if not tensor.isfinite().all()}, where
    )
    model.load_state_dict(found, strict=True)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(str(path), framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ExportError(
            f"{path.name} is no whole safetensors file",
            got=f"{path}, {path.stat().st_size} bytes: {error}",
            expected="the file as it was saved",
            fix="copy or download it again",
        ) from None


def _modern_names(found: dict[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    # Checkpoints from before diffusers 0.15, google/ddpm-* among them, name attention layers otherwise.
    for name in wanted.keys() - found.keys():
        for new, old in _OLD_ATTENTION.items():
            if new in name and (former := name.replace(new, old)) in found:
                found[name] = found.pop(former)


def _refuse(what: str, names: set[str], where: Path) -> None:
    if names:
        shown = sorted(names)[:3]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        raise ExportError(
            what,
            got=f"{', '.join(shown)}{more}",
            expected=f"the tensors of the network in {where / 'config.json'}",
            fix="pass config.json and weights that were saved together",
        )


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
