"""What a file of an EDM network says of itself, checked, and its weights put where they belong.

The file is safetensors. Tensors bear the names of the original network's state dict
(`model.enc.32x32_conv.weight`); `metadata["edm"]` is JSON: `class_name` and `init_kwargs` of the
preconditioning, as NVlabs' code was given them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clarep.engine.artefacts import parse_json
from clarep.engine.tensors import check_weights
from clarep.errors import UserError, unknown_name
from clarep.teachers.families.edm_net import (
    DhariwalShape,
    DhariwalUNet,
    EDMUNet,
    SongShape,
    SongUNet,
)
from clarep.teachers.families.edm_precond import EDM

METADATA_KEY = "edm"
_PRECOND = "EDMPrecond"
_SCALING = ("sigma_min", "sigma_max", "sigma_data")
_DEFAULT_MODEL = "DhariwalUNet"
_SHAPES: dict[str, type[DhariwalShape]] = {"SongUNet": SongShape, "DhariwalUNet": DhariwalShape}
_TRAINING_ONLY = ("use_fp16", "dropout", "augment_dim")
_LISTS = ("channel_mult", "attn_resolutions")
_PREFIX = "model."
# The augmentation that a network is asked for; asked for none, as here, it adds nothing.
_UNUSED = (f"{_PREFIX}map_augment.weight",)
_CHOICES: dict[str, tuple[Any, ...]] = {
    "embedding_type": ("positional", "fourier"),
    "encoder_type": ("standard", "residual"),
    "decoder_type": ("standard",),
    "resample_filter": ([1, 1], [1, 3, 3, 1]),
}


@dataclass(frozen=True)
class EDMSpec:
    """A network of EDM without its weights."""

    precond: EDM
    shape: DhariwalShape
    label_dropout: float = 0.0
    """Share of the images that it was trained on without their labels."""


def read_spec(class_name: str, init_kwargs: Mapping[str, Any], path: Path) -> EDMSpec:
    """Return what a checkpoint's arguments describe.

    Raises:
        UserError: for another preconditioning, model or option than those supported, a network
            without classes, or arguments that are missing or of another type; it names `path`.
    """
    if class_name != _PRECOND:
        raise UserError(f"{path}: {unknown_name('preconditioning', class_name, [_PRECOND])}")
    given = dict(init_kwargs)
    model = str(given.pop("model_type", _DEFAULT_MODEL))
    if model not in _SHAPES:
        raise UserError(f"{path}: {unknown_name('model_type', model, _SHAPES)}")
    shape_kind = _SHAPES[model]
    _taken(given, _TRAINING_ONLY)
    scaling, label_dropout = _taken(given, _SCALING), given.pop("label_dropout", 0)
    _check_arguments(given, [field.name for field in fields(shape_kind)], path)
    try:
        shape = shape_kind(**{name: _field(name, value) for name, value in given.items()})
        _check_shape(shape)
        return EDMSpec(
            precond=EDM(**{name: _number(name, value) for name, value in scaling.items()}),
            shape=shape,
            label_dropout=_number("label_dropout", label_dropout),
        )
    except (TypeError, ValueError) as error:
        raise _no_network(path, error) from error


def _taken(given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Take these arguments out of `given`, as far as they are there."""
    return {name: given.pop(name) for name in names if name in given}


def _check_arguments(given: Mapping[str, Any], known: list[str], path: Path) -> None:
    """Raise UserError for an argument that no supported network has."""
    for name, choices in _CHOICES.items():
        if name in known and name in given and given[name] not in choices:
            raise UserError(
                f"{path} has {name} {given[name]}: give a network with "
                f"{' or '.join(str(choice) for choice in choices)}"
            )
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise UserError(
            f"{path} has an argument '{unknown[0]}', which clarep does not know: "
            "give a network that NVlabs' edm repository trains"
        )
    if not given.get("label_dim"):
        raise UserError(
            f"{path} holds a network without classes (label_dim 0): give a conditional one, "
            "such as edm-cifar10-32x32-cond-vp"
        )


def metadata_of(class_name: str, init_kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata that `read_metadata` reads."""
    return {METADATA_KEY: json.dumps({"class_name": class_name, "init_kwargs": dict(init_kwargs)})}


def read_metadata(metadata: Mapping[str, str], path: Path) -> EDMSpec:
    """Return what a file's metadata describe; raises UserError as `read_spec`."""
    if METADATA_KEY not in metadata:
        raise UserError(
            f"{path} holds no EDM network (no '{METADATA_KEY}' in its metadata): "
            "give a file that clarep convert edm wrote"
        )
    try:
        described = parse_json(metadata[METADATA_KEY])
        class_name, kwargs = str(described["class_name"]), dict(described["init_kwargs"])
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"the '{METADATA_KEY}' in the metadata of {path} lacks class_name or init_kwargs: "
            "give a file that clarep convert edm wrote"
        ) from error
    return read_spec(class_name, kwargs, path)


def build_network(spec: EDMSpec, weights: Mapping[str, Tensor], path: Path) -> EDMUNet:
    """Return the network with these weights, which it takes as they are, not copied.

    weights: by the names of the original state dict.
    Raises UserError that names `path` if one is missing, too much, or of another shape.
    """
    network = _skeleton(spec.shape, path)
    wanted = {_PREFIX + name: value.shape for name, value in network.state_dict().items()}
    given = {name: value for name, value in weights.items() if name not in _UNUSED}
    lacking, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    other = [name for name in wanted if name in given and given[name].shape != wanted[name]]
    for names, fault in ((lacking, "lacks"), (extra, "has a weight that does not belong there,")):
        if names:
            raise _misfit(path, f"{fault} {names[0]}", len(names))
    if other:
        shapes = f"{tuple(given[other[0]].shape)} instead of {tuple(wanted[other[0]])}"
        raise _misfit(path, f"has {other[0]} of shape {shapes}", len(other))
    own = {name.removeprefix(_PREFIX): value for name, value in given.items()}
    check_weights(own, network, str(path))
    network.load_state_dict(own, assign=True)
    return network


def _skeleton(shape: DhariwalShape, path: Path) -> EDMUNet:
    """Return the network without weights: no memory and no random numbers are spent on them."""
    try:
        with torch.device("meta"):
            return SongUNet(shape) if isinstance(shape, SongShape) else DhariwalUNet(shape)
    except (ValueError, ZeroDivisionError) as error:
        raise _no_network(path, error) from error


def _no_network(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} describes no network that clarep can build "
        f"({' '.join(str(error).split())[:200]}): give one that NVlabs' edm repository trains"
    )


def _misfit(path: Path, fault: str, count: int) -> UserError:
    more = f" and {count - 1} more like it" if count > 1 else ""
    return UserError(
        f"{path} {fault}{more}: its weights are not of the network that its metadata describe; "
        "convert it again from the original pickle"
    )


def _field(name: str, value: Any) -> Any:
    """Return a field of a shape from JSON. Raises ValueError if it is of another type."""
    if name in _CHOICES:  # checked already
        return tuple(float(tap) for tap in value) if isinstance(value, list) else value
    if name not in _LISTS:
        return _whole(name, value)
    if not isinstance(value, list):
        raise ValueError(f"{name} {value} is no list")
    return tuple(_whole(name, entry) for entry in value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} {value} is no whole number from 1 up")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} {value} is no number")
    return float(value)


def _check_shape(shape: DhariwalShape) -> None:
    """Raise ValueError unless the resolution can be halved once for each level."""
    halvings = len(shape.channel_mult) - 1
    if halvings < 0 or shape.img_resolution % 2**halvings:
        raise ValueError(
            f"img_resolution {shape.img_resolution} cannot be halved {halvings} times, which "
            f"channel_mult {list(shape.channel_mult)} asks for"
        )
