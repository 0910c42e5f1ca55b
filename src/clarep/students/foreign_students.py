"""Students that people have: transformers' classifiers, timm's with weights, TorchScript."""

import os
from dataclasses import replace
from pathlib import Path

from clarep.errors import UserError, unknown_name
from clarep.students.foreign_model import ForeignModel
from clarep.students.hf_student import HF, load_hf
from clarep.students.student import Outputs
from clarep.students.timm_student import TIMM_PREFIX
from clarep.students.timm_weights import imagenet_names, load_timm
from clarep.students.torchscript_student import TORCHSCRIPT, load_torchscript
from clarep.teachers.options import read_class_names

TIMM = TIMM_PREFIX.removesuffix(":")
FAMILIES = (HF, TIMM, TORCHSCRIPT)
IMAGENET = "imagenet"
"""What --class-names may say in place of a file: the names of ImageNet's 1,000 classes."""


def is_foreign(spec: str) -> bool:
    """Say whether `spec` names a student of another library, FAMILY:PLACE."""
    family, colon, _ = spec.partition(":")
    return bool(colon) and family in FAMILIES and not Path(spec).exists()


def load_foreign(
    spec: str,
    weights: Path | None = None,
    class_names: str | None = None,
    image_size: int | None = None,
    *,
    outputs: Outputs = "logits",
) -> ForeignModel:
    """Load a classifier of another library; `ForeignModel.student` makes a student of it.

    Args:
        spec: hf:FOLDER_OR_HUB_ID, timm:NAME or torchscript:FILE.
        weights: of a timm model; None takes timm's own.
        class_names: text file, a name a line in the order of the logits, or IMAGENET, for where
            the model's own names are not the data's.
        image_size: height and width of the images of a timm model; the others know theirs, or
            take what they are given.
        outputs: what the model answers with.

    Raises:
        UserError: for what is missing, unreadable or unsupported, and for weights of a model
            that is not timm's.
    """
    family, _, place = spec.partition(":")
    if family not in FAMILIES:
        raise unknown_name("library of models", family, FAMILIES)
    if not place:
        raise UserError(f"{spec} names no model: give {family}:PLACE")
    if weights is not None and family != TIMM:
        raise UserError(f"`weights={weights}` means nothing to {spec}: leave it out")
    if family == HF:
        model = load_hf(place)
    elif family == TORCHSCRIPT:
        model = load_torchscript(place)
    else:
        model = load_timm(place, weights, image_size)
    names = None if class_names is None else _names(class_names)
    return replace(model, given_names=names, outputs=outputs)


def _names(class_names: str) -> tuple[str, ...]:
    names = (
        imagenet_names()
        if class_names == IMAGENET
        else read_class_names(Path(os.path.expanduser(class_names)))
    )
    if len(set(names)) != len(names):
        raise UserError(f"`class_names={class_names}` gives a name twice: name each class once")
    return names
