"""Any torch module as a student: what `Student.from_module` makes."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clarep.engine.arrays import logits_in
from clarep.engine.printable import counted
from clarep.errors import UserError, refusing, unknown_name
from clarep.students.student import FAULTS, Normalise, Student, StudentInfo

LOGITS = "logits"
"""The layer of a classifier whose features cannot be got at: its logits stand for them."""
Both = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images (B, C, H, W) in [0, 1] -> features (B, D) and answers (B, classes), of one pass."""


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


def sizes(name: str, both: Both, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Send two black images through; return D and the number of classes.

    Two, because some models were traced for one image and take no other number. Raises UserError
    for a model that does not take them, or answers otherwise than it should.
    """
    channels, height, width = image_shape
    such = f"images of {width}x{height} with {counted(channels, 'channel')}"
    what = f"{name} takes no {such}, or not two at once"
    with torch.no_grad(), refusing(what, "give another size of images or model", FAULTS):
        features, answers = both(torch.zeros(2, *image_shape))
    if answers.ndim != 2 or len(answers) != 2 or len(features) != 2 or features.ndim != 2:
        raise UserError(
            f"{name} gives features {tuple(features.shape)} and an answer of shape "
            f"{tuple(answers.shape)} for two images: give a model that classifies images, "
            "(B, classes)"
        )
    return features.shape[1], answers.shape[1]


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
            raise unknown_name("layer of the module", str(layer), [name for name in names if name])
        self.net, self.info = net, info
        self.normalise = Normalise(mean, std)
        self._head = last_linear(net, len(info.class_names)) if layer is None else layer
        self.layer = self._head or LOGITS
        # A net in evaluation mode stays so: in training mode it would answer otherwise.
        modes = [(module, module.training) for module in net.modules()]
        try:
            self.feature_dim, classes = sizes(info.name, self.eval().both, info.image_shape)
        finally:
            for module, training in modes:
                module.training = training
        self.training = net.training
        if classes != len(info.class_names):
            raise UserError(
                f"the module tells {counted(classes, 'class')} apart: give one class name for each "
                "of its logits, in their order"
            )

    def both(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch classes"]]:
        x = self.normalise(x)
        return tapped(self.net, self._head, lambda: logits_in(self.net(x)).float())
