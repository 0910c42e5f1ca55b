"""Any torch module as a student: what `Student.from_module` makes."""

import copy
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clarep.errors import UserError, said_by, unknown_name
from clarep.students.student import FAULTS, Normalise, Student, StudentInfo, logits_of

LOGITS = "logits"
"""The layer of a classifier whose features cannot be got at: its logits stand for them."""


def last_linear(net: nn.Module, classes: int) -> str | None:
    """Return the name of the last linear layer with so many outputs; None without one."""
    heads = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    return heads[-1] if heads else None


def tapped(net: nn.Module, head: str | None, run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Return what a layer reads (B, D), and the logits; without a layer the logits twice."""
    if head is None:
        logits = run()
        return logits, logits
    read: list[Tensor] = []
    hook = net.get_submodule(head).register_forward_pre_hook(lambda _, given: read.append(given[0]))
    try:
        logits = run()
    finally:
        hook.remove()
    if not read:
        raise UserError(f"the layer {head} is not run by the model: name another with `layer`")
    return read[-1].flatten(1), logits


class ModuleStudent(Student):
    """A torch module of the user's own; see `Student.from_module`."""

    def __init__(
        self,
        net: nn.Module,
        info: StudentInfo,
        layer: str | None,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        names = dict(net.named_modules())
        if layer is not None and layer not in names:
            raise unknown_name("layer of the module", layer, [name for name in names if name])
        self.net, self.info = net, info
        self.normalise = Normalise(mean, std)
        self._head = last_linear(net, len(info.class_names)) if layer is None else layer
        self.layer = self._head or LOGITS
        training = self.training
        try:
            with torch.no_grad():
                features, logits = self.eval().both(torch.zeros(2, *info.image_shape))
        except FAULTS as error:
            raise UserError(
                f"the module fails on two images of shape {info.image_shape} ({said_by(error)}): "
                "give the `image_shape` that it takes, (C, H, W)"
            ) from error
        finally:
            self.train(training)
        if logits.shape != (2, len(info.class_names)):
            raise UserError(
                f"the module answers two images with {tuple(logits.shape)}: give one class name "
                "for each of its logits, in their order"
            )
        self.feature_dim = features.shape[1]

    def both(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch classes"]]:
        x = self.normalise(x)
        return tapped(self.net, self._head, lambda: logits_of(self.net(x)))

    def features(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d"]:
        return self.both(x)[0]

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        return self.both(x)[1]

    def fresh(self) -> "ModuleStudent":
        """Return a copy: the module as it is, with memory of its own."""
        return copy.deepcopy(self)
