"""Any timm model as a student, through timm's own interface."""

import difflib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clarep.engine.extras import require_extra
from clarep.errors import UserError, unknown_name
from clarep.students.student import PENULTIMATE, Normalise, Student, StudentInfo

TIMM_PREFIX = "timm:"


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
        layers = [PENULTIMATE, *_stages(self.net)]
        if self.layer not in layers:
            raise unknown_name(f"layer of {info.name}", self.layer, layers)
        self._stage = layers.index(self.layer) - 1  # of the model's feature_info; -1 is the head
        self.normalise = _normalise(self.net, info.image_shape[0])
        self.feature_dim = self._probe()

    def features(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d"]:
        x = self.normalise(x)
        if self._stage < 0:
            pooled: Tensor = self.net.forward_head(self.net.forward_features(x), pre_logits=True)
            return pooled
        (stage,) = self.net.forward_intermediates(
            x, indices=[self._stage], stop_early=True, intermediates_only=True
        )
        return _pool(stage)

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.net(self.normalise(x))
        return logits

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
            pooled = _pool(stage)
        return pooled, self.net.forward_head(last)

    def _probe(self) -> int:
        """Send one black image through; return D, or raise UserError if the model refuses it."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                pooled, logits = self.both(torch.zeros(1, *self.info.image_shape))
        except (AssertionError, IndexError, RuntimeError, ValueError) as error:
            raise _refused(self.info, error) from error
        self.train(training)
        if pooled.ndim != 2 or logits.shape != (1, len(self.info.class_names)):
            raise UserError(
                f"{self.info.name} gives features {tuple(pooled.shape)} and logits "
                f"{tuple(logits.shape)} for one image: give a model that classifies images"
            )
        return pooled.shape[1]


def _create(info: StudentInfo) -> Any:  # timm's models share methods, but no typed class
    timm = require_extra("timm", "timm")
    name = info.name.removeprefix(TIMM_PREFIX)
    if ":" in name or not timm.is_model(name):  # a prefix such as hf-hub: would ask the network
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"unknown timm model '{name}': {hint}valid are the {len(timm.list_models())} names "
            "of timm.list_models()"
        )
    channels, height, width = info.image_shape
    options = {"num_classes": len(info.class_names), "in_chans": channels}
    try:
        try:
            return timm.create_model(name, img_size=(height, width), **options)
        except TypeError:  # models without a fixed image size do not know the option
            return timm.create_model(name, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(info, error) from error


def _refused(info: StudentInfo, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"{info.name} cannot be built for images of shape {info.image_shape} "
        f"({type(error).__name__}: {reason}): give another model or image size"
    )


def _stages(net: Any) -> list[str]:
    """Return the names of the stages that the model can be tapped at, in its own order."""
    if not hasattr(net, "forward_intermediates"):
        return []
    return [str(stage["module"]) for stage in net.feature_info]


def _normalise(net: nn.Module, channels: int) -> Normalise:
    """Take the model's own mean and deviation; their averages where channels are not three."""
    config: Any = net.pretrained_cfg
    mean, std = list(config["mean"]), list(config["std"])
    if len(mean) != channels:
        mean, std = [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels
    return Normalise(mean, std)


def _pool(stage: Tensor) -> Tensor:
    return stage.flatten(2).mean(dim=2)  # (B, D, H, W) -> (B, D)
