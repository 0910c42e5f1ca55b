"""`edm:FILE`: class-conditional networks of NVlabs' EDM, from safetensors.

Karras et al. 2022 (arXiv 2206.00364). clarep opens no pickle: `clarep convert edm` makes the file.
Its tensors bear the names of the original network's state dict (`model.enc.32x32_conv.weight`);
`metadata["edm"]` is JSON: `class_name` and `init_kwargs` of the preconditioning, as NVlabs' code
was given them.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clarep.engine.artefacts import parse_json
from clarep.errors import UserError, unknown_name
from clarep.teachers.checkpoint_files import Checkpoint, read_weights
from clarep.teachers.classes_by_name import choose_classes
from clarep.teachers.families.edm_net import Block, DhariwalShape, EDMUNet, SongShape
from clarep.teachers.foreign import ForeignTeacher
from clarep.teachers.options import TeacherOptions, check_options
from clarep.teachers.parametrisation import EDM

METADATA_KEY = "edm"
_PRECOND = "EDMPrecond"
_SCALING = ("sigma_min", "sigma_max", "sigma_data")
_SHAPES: dict[str, type[DhariwalShape]] = {"SongUNet": SongShape, "DhariwalUNet": DhariwalShape}
_TRAINING_ONLY = ("use_fp16", "dropout", "augment_dim")
# The augmentation that a network is asked for; asked for none, as here, it adds nothing.
_UNUSED = "model.map_augment.weight"
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


def load(place: str, options: TeacherOptions) -> ForeignTeacher:
    """Load a file that `clarep convert edm` wrote; raises UserError.

    A class's condition is one-hot, the null label's all zeros. A network that was trained without
    dropping labels, as the published ones were, has never seen that: it has no null class.
    """
    check_options(options, "edm", ("device", "bf16", "class_names"))
    path = Path(os.path.expanduser(place))
    if path.is_file() and path.suffix != ".safetensors":
        raise UserError(
            f"{path} is no .safetensors but may be a pickle, which can run any code when it is "
            "opened and which clarep does not load: make a .safetensors of it with "
            f"clarep convert edm {path}"
        )
    weights, metadata, _ = read_weights(path)
    try:
        described = parse_json(metadata[METADATA_KEY])
        class_name, kwargs = str(described["class_name"]), dict(described["init_kwargs"])
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no EDM network (no '{METADATA_KEY}' with class_name and init_kwargs in "
            "its metadata): give a file that clarep convert edm wrote"
        ) from error
    spec = read_spec(class_name, kwargs, path)
    network, shape = build_network(spec, weights, path), spec.shape
    classes = choose_classes(options, shape.label_dim)
    one_hot = torch.eye(shape.label_dim + 1, shape.label_dim)
    coarsest = shape.img_resolution >> (len(shape.channel_mult) - 1)
    named = network.named_modules()
    return ForeignTeacher(
        network,
        spec.precond,
        options,
        latent_shape=(shape.img_channels, shape.img_resolution, shape.img_resolution),
        class_names=classes.names,
        # The end of the bottleneck: a block with attention, in0, and this one.
        default_tap=f"dec.{coarsest}x{coarsest}_in1",
        tap_modules={name: module for name, module in named if isinstance(module, Block)},
        conditions=one_hot[[*classes.ids, shape.label_dim]],
        has_null=spec.label_dropout > 0,
    )


def read_spec(class_name: str, init_kwargs: Mapping[str, Any], path: Path) -> EDMSpec:
    """Return what a checkpoint's arguments describe; raises UserError that names `path`."""
    if class_name != _PRECOND:
        raise UserError(f"{path}: {unknown_name('preconditioning', class_name, [_PRECOND])}")
    given = {name: value for name, value in init_kwargs.items() if name not in _TRAINING_ONLY}
    model = str(given.pop("model_type", "DhariwalUNet"))
    if model not in _SHAPES:
        raise UserError(f"{path}: {unknown_name('model_type', model, _SHAPES)}")
    scaling = {name: given.pop(name) for name in _SCALING if name in given}
    label_dropout = given.pop("label_dropout", 0)
    known = {field.name for field in fields(_SHAPES[model])}
    for name, value in given.items():
        if name not in known:
            raise UserError(
                f"{path} has an argument '{name}', which clarep does not know: "
                "give a network that NVlabs' edm repository trains"
            )
        if name in _CHOICES and value not in _CHOICES[name]:
            raise UserError(
                f"{path} has {name} {value}: give a network with "
                f"{' or '.join(map(str, _CHOICES[name]))}"
            )
    if not given.get("label_dim"):
        raise UserError(
            f"{path} holds a network without classes (label_dim 0): give a conditional one, "
            "such as edm-cifar10-32x32-cond-vp"
        )
    try:
        shape = _SHAPES[model](**{name: _field(name, value) for name, value in given.items()})
        halvings = len(shape.channel_mult) - 1
        if halvings < 0 or shape.img_resolution % 2**halvings:
            raise ValueError(
                f"img_resolution {shape.img_resolution} cannot be halved {halvings} "
                f"times, which channel_mult {list(shape.channel_mult)} asks for"
            )
        return EDMSpec(
            EDM(**{name: _number(name, value) for name, value in scaling.items()}),
            shape,
            _number("label_dropout", label_dropout),
        )
    except (TypeError, ValueError) as error:
        raise _no_network(path, error) from error


def metadata_of(class_name: str, init_kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata that `load` reads."""
    return {METADATA_KEY: json.dumps({"class_name": class_name, "init_kwargs": dict(init_kwargs)})}


def build_network(spec: EDMSpec, weights: Mapping[str, Tensor], path: Path) -> EDMUNet:
    """Return the network with these weights, by the names of the original state dict."""
    try:
        with torch.device("meta"):  # no memory and no random numbers are spent on weights
            network = EDMUNet(spec.shape)
    except (ValueError, ZeroDivisionError) as error:
        raise _no_network(path, error) from error
    own = {name: value for name, value in weights.items() if name != _UNUSED}
    Checkpoint(path, own, {}, family="EDM network").fill(nn.ModuleDict({"model": network}))
    return network


def _no_network(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} describes no network that clarep can build "
        f"({' '.join(str(error).split())[:200]}): give one that NVlabs' edm repository trains"
    )


def _field(name: str, value: Any) -> Any:
    """Return a field of a shape from JSON. Raises ValueError if it is of another type."""
    if name in _CHOICES:  # checked already
        return tuple(map(float, value)) if isinstance(value, list) else value
    if name not in ("channel_mult", "attn_resolutions"):
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
