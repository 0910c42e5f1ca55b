"""Students that people have: transformers' classifiers, timm's with weights, TorchScript."""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from clarep.engine.arrays import as_names, logits_in
from clarep.engine.artefacts import sha256_file
from clarep.errors import UserError, refusing, unknown_name
from clarep.students.hf_student import load_hf
from clarep.students.matched_student import WholeModel
from clarep.students.module_student import LOGITS
from clarep.students.student import Outputs
from clarep.students.timm_student import imagenet_names, load_timm
from clarep.teachers.options import read_class_names

FAMILIES = ("hf", "timm", "torchscript")


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
) -> WholeModel:
    """Load a classifier of another library; `WholeModel.student` makes a student of it.

    Args:
        spec: hf:FOLDER_OR_HUB_ID, timm:NAME or torchscript:FILE.
        weights: of a timm model; None takes timm's own.
        class_names: text file, a name a line in the order of the logits, or `imagenet`, for its
            1,000, where the model's own names are not the data's.
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
    if weights is not None and family != "timm":
        raise UserError(f"`weights={weights}` means nothing to {spec}: leave it out")
    if family == "hf":
        model = load_hf(place)
    elif family == "torchscript":
        model = load_torchscript(place)
    else:
        model = load_timm(place, weights, image_size)
    if class_names is None:
        return replace(model, outputs=outputs)
    names = (
        imagenet_names()
        if class_names == "imagenet"
        else read_class_names(Path(os.path.expanduser(class_names)))
    )
    return replace(model, given_names=as_names(names), outputs=outputs)


def load_torchscript(place: str) -> WholeModel:
    """Load a file that torch.jit.save wrote; on the CPU, in evaluation mode.

    Such a file is a program: loading it trusts its author. It normalises images itself, has no
    layer to tap but its logits, its classes have no names, and its images' size is not known.
    Raises UserError if it cannot be read.
    """
    path = Path(os.path.expanduser(place))
    if not path.is_file():
        raise UserError(f"there is no file {place}: give one that torch.jit.save wrote")
    mend = (
        "give a whole file that torch.jit.save wrote; weights alone are for timm:NAME, with "
        "`weights=FILE`"
    )
    faults = (OSError, RuntimeError, ValueError)
    with warnings.catch_warnings(), refusing(f"cannot read TorchScript from {path}", mend, faults):
        # torch calls TorchScript deprecated; people have such files all the same.
        warnings.filterwarnings("ignore", "`torch.jit.load` is", FutureWarning)
        script = torch.jit.load(path, map_location="cpu")
    if hasattr(script, "training"):  # a frozen one is in evaluation mode for good
        script.eval()
    for parameter in script.parameters():
        parameter.requires_grad_(False)

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_in(script(x)).float()
        return logits, logits

    # It is none of the model's parts: modes and gradients of a frozen one cannot be set. Its code
    # counts, and is in no state dict: the file's bytes stand for all of it.
    return WholeModel(f"torchscript:{place}", both, LOGITS, identity=sha256_file(path))
