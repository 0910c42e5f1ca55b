"""Any timm model as a student: to be trained, or with weights that are there."""

import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clarep.engine.extras import require_extra
from clarep.engine.hub import checkpoint_folder
from clarep.engine.tensors import check_weights
from clarep.errors import UserError, nearest, refusing, unknown_name
from clarep.students.matched_student import WholeModel
from clarep.students.module_student import sizes
from clarep.students.student import FAULTS, PENULTIMATE, Normalise, Student, StudentInfo
from clarep.teachers.checkpoint_files import ENTRY, Checkpoint, read_weights, without_prefix

TIMM_PREFIX = "timm:"
_HUB_FILE = "model.safetensors"
_LIGHTNING = "model."  # what PyTorch Lightning puts before the names


class TimmStudent(Student):
    """A timm model with fresh weights (none are downloaded); timm's own mean and deviation.

    Layers: `penultimate` is `forward_head(pre_logits=True)`; the others are the modules of the
    model's `feature_info` (`layer3`, `blocks.5`), from `forward_intermediates`, averaged over
    space.
    """

    def __init__(self, info: StudentInfo, layer: str | None = None) -> None:
        """Build the model that `info.name`, timm:NAME, stands for.

        Raises UserError without the extra [timm], for an unknown model or layer, and for images
        that the model does not take.
        """
        super().__init__()
        self.info = info
        self.net = _create(info)
        self.layer = PENULTIMATE if layer is None else layer
        layers = [PENULTIMATE]
        if hasattr(self.net, "forward_intermediates"):
            layers += [str(stage["module"]) for stage in self.net.feature_info]
        if self.layer not in layers:
            raise unknown_name(f"layer of {info.name}", self.layer, layers)
        self._stage = layers.index(self.layer) - 1  # of the model's feature_info; -1 is the head
        # The model's own mean and deviation; their averages where channels are not three.
        channels, known = info.image_shape[0], self.net.pretrained_cfg
        mean, std = (
            given if len(given) == channels else [sum(given) / len(given)] * channels
            for given in (known["mean"], known["std"])
        )
        self.normalise = Normalise(mean, std)
        self.feature_dim, _ = sizes(info.name, self.eval().both, info.image_shape)
        self.train()

    def both(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch classes"]]:
        x = self.normalise(x)
        if self._stage < 0:
            last = self.net.forward_features(x)
            # Twice through the head: pooling and, in a few models, a small layer before the last.
            pooled = self.net.forward_head(last, pre_logits=True)
        else:
            last, (stage,) = self.net.forward_intermediates(x, indices=[self._stage])
            pooled = stage.flatten(2).mean(dim=2)  # (B, D, H, W) -> (B, D)
        return pooled, self.net.forward_head(last)


def load_timm(name: str, weights: Path | None, image_size: int | None) -> WholeModel:
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
    _, _, config = _known(spec)
    if config is None or not isinstance(config.classifier, str):
        raise UserError(
            f"timm names no single head of {spec}: give a model that has one, or torchscript:FILE"
        )
    side = image_size or config.input_size[-1]
    path = _pretrained(spec, config) if weights is None else Path(os.path.expanduser(weights))
    state, metadata, _ = read_weights(path)
    found = Checkpoint(path, without_prefix(state, _LIGHTNING), {}, family=spec)
    head = found.weights.get(f"{config.classifier}.weight")
    if head is None or head.ndim == 0:
        raise found.refusal(f"it lacks its head ({config.classifier}.weight)")
    names = tuple(str(i) for i in range(len(head)))
    with torch.random.fork_rng(devices=[]):
        student = TimmStudent(StudentInfo(spec, names, (3, side, side)))
    check_weights(found.weights, student.net, str(path))
    try:
        found.fill(student.net)
    except UserError as error:
        raise UserError(f"{error}, or the `image_size` that it was trained at") from error
    student.float().eval()
    known = imagenet_names() if weights is None and len(names) == 1000 else None
    entry = metadata.get(ENTRY, "")
    return WholeModel(
        spec,
        student.both,
        student.layer,
        {"student": student},
        identity=spec,
        class_names=known,
        side=side,
        note=f"of {path} the averaged weights (EMA, {entry}) are taken" if "ema" in entry else "",
    )


def imagenet_names() -> tuple[str, ...]:
    """Return wnid and names of each of ImageNet's 1,000 classes, in order, divided by commas.

    Raises UserError without timm.
    """
    info = require_extra("timm.data", "timm").ImageNetInfo("imagenet-1k")
    words = info.label_descriptions()
    return tuple(f"{wnid}, {name}" for wnid, name in zip(info.label_names(), words, strict=True))


def _known(spec: str) -> tuple[Any, str, Any]:
    """Return timm, the name of the model in it, and its configuration."""
    timm, name = require_extra("timm", "timm"), spec.removeprefix(TIMM_PREFIX)
    if ":" in name or not timm.is_model(name):  # a prefix such as hf-hub: would ask the network
        names = timm.list_models()
        raise UserError(
            f"unknown timm model '{name}': {nearest(name, names)}valid are the {len(names)} names "
            "of timm.list_models()"
        )
    with refusing(f"{spec} cannot be built", "give another tag, or none", (RuntimeError,)):
        return timm, name, timm.get_pretrained_cfg(name)


def _create(info: StudentInfo) -> Any:  # timm's models share methods, but no typed class
    timm, name, _ = _known(info.name)
    channels, height, width = info.image_shape
    options = {"num_classes": len(info.class_names), "in_chans": channels}
    what = f"{info.name} cannot be built for images of shape {info.image_shape}"
    with refusing(what, "give another model or image size", FAULTS):
        try:
            return timm.create_model(name, img_size=(height, width), **options)
        except TypeError:  # models without a fixed image size do not know the option
            return timm.create_model(name, **options)


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
