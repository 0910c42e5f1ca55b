"""timm models with weights: a file of the user's, or timm's own from the hub's cache."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from clarep.engine.extras import require_extra
from clarep.engine.tensors import check_weights
from clarep.errors import UserError, said_by
from clarep.students.foreign_model import ForeignModel, ForeignNet
from clarep.students.student import StudentInfo
from clarep.students.student_files import build_student
from clarep.students.timm_student import TIMM_PREFIX, TimmStudent
from clarep.teachers.checkpoint_files import ENTRY, read_weights, without_prefix
from clarep.teachers.hub import checkpoint_folder

_HUB_FILE = "model.safetensors"
_LIGHTNING = "model."  # what PyTorch Lightning puts before the names


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
        weights: its state dict as safetensors or a torch file, also in a checkpoint of timm's
            training script, where EMA weights go before raw ones; None takes timm's own, from the
            hub or its cache.
        image_size: height and width; None takes those that timm knows of the model.

    Raises:
        UserError: without the extra [timm], for an unknown model, weights that cannot be had or
            read, or that are of another model.
    """
    spec = f"{TIMM_PREFIX}{name}"
    config = _config(name)
    side = image_size or config.input_size[-1]
    path = _pretrained(spec, config) if weights is None else Path(os.path.expanduser(weights))
    state, metadata, _ = read_weights(path)
    state = without_prefix(state, _LIGHTNING)
    classes = _classes(spec, config, state, path)
    names = tuple(str(i) for i in range(classes))
    student = build_student(StudentInfo(spec, names, (3, side, side)))
    assert isinstance(student, TimmStudent)
    _check_fit(spec, student.net.state_dict(), state, path)
    check_weights(state, student.net, str(path))
    student.net.load_state_dict(state)
    student.eval()
    known = imagenet_names() if weights is None and classes == 1000 else None
    entry = metadata.get(ENTRY, "")
    note = f"of {path} the averaged weights (EMA, {entry}) are taken" if "ema" in entry else ""
    return ForeignModel(spec, TimmNet(student), spec, known, side, note=note)


def imagenet_names() -> tuple[str, ...]:
    """Return wnid and names of each of ImageNet's 1,000 classes, in order, divided by commas.

    Raises UserError without timm.
    """
    info = require_extra("timm.data", "timm").ImageNetInfo("imagenet-1k")
    words = info.label_descriptions()
    return tuple(f"{wnid}, {name}" for wnid, name in zip(info.label_names(), words, strict=True))


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
        raise UserError(f"timm has no weights of {spec} on the hub: give `weights=FILE`")
    try:
        folder = checkpoint_folder(config.hf_hub_id)
    except UserError as error:
        raise UserError(f"{error}; in place of a folder {spec} takes `weights=FILE`") from error
    path = folder / (config.hf_hub_filename or _HUB_FILE)
    if path.suffix != ".safetensors" or not path.is_file():
        raise UserError(
            f"{config.hf_hub_id} holds no {_HUB_FILE}: give another tag of {spec}, or "
            "`weights=FILE`; pickled weights are not taken from the hub"
        )
    return path


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
            "`image_size` that it was trained at"
        )
