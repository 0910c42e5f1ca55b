"""timm models with weights: a file of the user's, or timm's own from the hub's cache."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clarep.distill.foreign_model import ForeignModel, ForeignNet, said_by
from clarep.distill.student import StudentInfo
from clarep.distill.students import build_student
from clarep.distill.timm_student import TIMM_PREFIX, TimmStudent
from clarep.engine.extras import require_extra
from clarep.errors import UserError
from clarep.teachers.hub import checkpoint_folder

_HUB_FILE = "model.safetensors"
_INSIDE = "state_dict"  # where timm's own training script keeps the weights


class TimmNet(ForeignNet):
    """A timm model, tapped and normalised as `TimmStudent` does."""

    def __init__(self, student: TimmStudent) -> None:
        super().__init__()
        self.student = student
        self.layer = student.layer

    def both(self, x: Float[Tensor, "batch c h w"]) -> tuple[Tensor, Tensor]:
        return self.student.both(x)


def load_timm(name: str, weights: Path | None, image_size: int | None) -> ForeignModel:
    """Load a timm model.

    Args:
        name: of timm.list_models(), with or without a tag such as resnet18.a1_in1k.
        weights: its state dict as safetensors or a torch file of tensors alone; None takes
            timm's own, from the hub or its cache.
        image_size: height and width; None takes those that timm knows of the model.

    Raises:
        UserError: without the extra [timm], for an unknown model, weights that cannot be had or
            read, or that are of another model.
    """
    spec = f"{TIMM_PREFIX}{name}"
    config = _config(name)
    side = image_size or config.input_size[-1]
    path = _pretrained(spec, config) if weights is None else Path(os.path.expanduser(weights))
    state = _read(path)
    classes = _classes(spec, config, state, path)
    names = tuple(str(i) for i in range(classes))
    student = build_student(StudentInfo(spec, names, (3, side, side)))
    assert isinstance(student, TimmStudent)
    _check_fit(spec, student.net.state_dict(), state, path)
    student.net.load_state_dict(state)
    student.eval()
    wnids = imagenet_wnids() if weights is None and classes == 1000 else None
    return ForeignModel(spec, TimmNet(student), spec, wnids, side)


def imagenet_wnids() -> tuple[str, ...]:
    """Return the wnids of ImageNet's 1,000 classes in order. Raises UserError without timm."""
    data = require_extra("timm.data", "timm")
    return tuple(data.ImageNetInfo("imagenet-1k").label_names())


def _config(name: str) -> Any:
    """Return timm's configuration of a model, from which its head and size are known."""
    timm = require_extra("timm", "timm")
    if ":" in name or not timm.is_model(name):
        build_student(StudentInfo(f"{TIMM_PREFIX}{name}", ("0", "1"), (3, 32, 32)))  # refuses it
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(
            f"{TIMM_PREFIX}{name} cannot be built ({said_by(error)}): give another tag, or none"
        ) from error
    if config is None or not isinstance(config.classifier, str):
        raise UserError(
            f"timm names no single head of {TIMM_PREFIX}{name}: give a model that has one, or "
            "torchscript:FILE"
        )
    return config


def _pretrained(spec: str, config: Any) -> Path:
    """Return the file of timm's own weights, downloaded if the cache lacks it."""
    if not config.hf_hub_id:
        raise UserError(f"timm has no weights of {spec} on the hub: give --weights FILE")
    folder = checkpoint_folder(config.hf_hub_id)
    path = folder / (config.hf_hub_filename or _HUB_FILE)
    if path.suffix != ".safetensors" or not path.is_file():
        raise UserError(
            f"{config.hf_hub_id} holds no {_HUB_FILE}: give another tag of {spec}, or --weights "
            "FILE; pickled weights are not taken from the hub"
        )
    return path


def _read(path: Path) -> dict[str, Tensor]:
    """Read a state dict without ever unpickling anything but tensors."""
    if not path.is_file():
        raise UserError(f"there is no file {path}: give a state dict, safetensors or a torch file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no torch file, or holds more than tensors, which is never unpickled: "
            "give a state dict alone, better as safetensors"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, SafetensorError) as error:
        raise UserError(
            f"cannot read weights from {path} ({said_by(error)}): give a whole state dict"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get(_INSIDE), Mapping):
        content = content[_INSIDE]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(
            f"{path} holds no state dict, neither as a whole nor under '{_INSIDE}': "
            "give one, tensors by name"
        )
    return dict(content)


def _classes(spec: str, config: Any, state: Mapping[str, Tensor], path: Path) -> int:
    """Return how many classes the weights tell apart, from the shape of the head's."""
    head = f"{config.classifier}.weight"
    if head not in state or state[head].ndim == 0:
        raise UserError(
            f"{path} does not fit {spec}, whose head it lacks ({head}): give weights of that "
            "model with their head"
        )
    return len(state[head])


def _check_fit(
    spec: str, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path
) -> None:
    """Raise UserError unless names and shapes are the model's."""
    shapes = [
        f"{name} is {'x'.join(map(str, state[name].shape))} there and "
        f"{'x'.join(map(str, value.shape))} in the model"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    lacking = [f"{name} is not there" for name in wanted if name not in state]
    unknown = [f"{name} is not in the model" for name in state if name not in wanted]
    found = [*shapes, *lacking, *unknown]
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise UserError(
            f"{path} does not fit {spec} ({found[0]}{more}): give weights of that model, or the "
            "--image-size that it was trained at"
        )
