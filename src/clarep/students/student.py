"""`Student`: what every classifier is to the rest of clarep."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clarep.engine.arrays import as_names
from clarep.engine.hub import checkpoint_folder
from clarep.errors import UserError, check_type, unknown_name

PENULTIMATE = "penultimate"
"""The layer that meets the teacher unless another is named: what the last linear map reads."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
"""What own architectures may have: only with smooth ones, silu and gelu, can the gradient in the
input be trained well (Rodriguez-Munoz, Wang & Torralba 2024, arXiv 2409.20139)."""
Outputs = Literal["logits", "probabilities"]
"""What the rows are that a classifier answers with."""


@dataclass(frozen=True)
class StudentInfo:
    """What must be known of a student to build it again and to feed it."""

    name: str
    """Architecture: a name of `STUDENTS`, or timm:NAME."""
    class_names: tuple[str, ...]
    """Names of the classes, in the order of the logits."""
    image_shape: tuple[int, int, int]
    """(C, H, W) of the images that it takes."""
    activation: str | None = None
    """Of ACTIVATIONS, in place of the architecture's own; of own architectures alone."""


class Student(nn.Module, ABC):
    """A classifier with a feature tap. Images are float in [0, 1]; it normalises them itself."""

    info: StudentInfo
    layer: str
    """The layer that meets the teacher."""
    feature_dim: int
    """D of the features at that layer."""
    identity: str = ""
    """What tells it from another of the same weights, where they do not tell it all."""
    notes: tuple[str, ...] = ()
    """What is otherwise than one may expect."""
    outputs: Outputs = "logits"
    """What `answers` gives."""

    @staticmethod
    def from_module(
        net: nn.Module,
        class_names: Sequence[str],
        image_shape: tuple[int, int, int],
        *,
        layer: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str = "module",
    ) -> "Student":
        """Return any torch classifier as a student, to be trained, attacked and measured.

        Args:
            net: maps normalised images (B, C, H, W) to logits (B, classes), alone, first of a
                tuple, or as `logits`. It is not copied, and stays in the mode that it is in.
            class_names: in the order of its logits.
            image_shape: (C, H, W) of the images that it takes.
            layer: name of a submodule; what it reads, flattened, is the student's features. None
                takes the last linear layer of one output a class; where there is none, the logits
                stand for features.
            mean: of each channel, taken from images in [0, 1]; None takes 0, for a module that
                normalises them itself.
            std: of each channel, by which they are then divided; None takes 1.
            name: what the student is called in tables.

        Raises:
            UserError: if it takes no such images, gives no logits of these classes, or has no
                such layer.

        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> student = Student.from_module(net, ["cat", "dog"], (3, 8, 8))
        >>> student.features(torch.rand(5, 3, 8, 8)).shape
        torch.Size([5, 16])
        """
        from clarep.students.module_student import ModuleStudent

        check_type("net", net, nn.Module, "a torch.nn.Module")
        check_type("image_shape", image_shape, Sequence, "(C, H, W), such as (3, 32, 32)")
        if len(image_shape) != 3 or not all(isinstance(size, int) for size in image_shape):
            raise UserError(f"image_shape {image_shape!r} is not (C, H, W): give (3, 32, 32), say")
        names, channels = as_names(class_names), image_shape[0]
        try:
            mean = [0.0] * channels if mean is None else [float(value) for value in mean]
            std = [1.0] * channels if std is None else [float(value) for value in std]
        except (TypeError, ValueError):
            mean, std = [], []
        if not (len(mean) == len(std) == channels and min(std) > 0):
            raise UserError(
                f"mean {mean} and std {std} do not normalise {channels} channels: give one of each "
                "a channel, std above 0, of images in [0, 1]"
            )
        shape = (image_shape[0], image_shape[1], image_shape[2])
        return ModuleStudent(net, StudentInfo(name, names, shape), layer, mean, std)

    @staticmethod
    def from_pretrained(place: str) -> "Student":
        """Return a student of the Hugging Face hub that `push_to_hub` put there.

        Args:
            place: OWNER/NAME or OWNER/NAME@REVISION, or a folder.

        Raises:
            UserError: without huggingface_hub, or if there is none, or a damaged one.
        """
        from clarep.students.student_files import load_student

        return load_student(checkpoint_folder(place))

    @abstractmethod
    def both(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch classes"]]:
        """Return features and logits of one pass."""

    def features(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d"]:
        """Return the activations at the layer that meets the teacher, pooled, (B, D)."""
        return self.both(x)[0]

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        """Return the logits."""
        return self.both(x)[1]

    def answers(self, x: Float[Tensor, "batch c h w"]) -> object:
        """Return what the model itself answers with, before anything is made logits of it."""
        return self.both(x)[1]


class Normalise(nn.Module):
    """(x - mean) / std per channel, both of them buffers, so that they travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Raise UserError for integers: uint8 in [0, 255] would be taken, and answered wrongly."""
        if not x.is_floating_point():
            raise UserError(f"images are {x.dtype}: give float in [0, 1], of uint8 images / 255")
        return (x - self.mean) / self.std


def activation_of(info: StudentInfo, own: str) -> nn.Module:
    """Build the activation that a student is asked to have, or the architecture's `own`.

    Raises UserError for one that is not among ACTIVATIONS.
    """
    name = own if info.activation is None else info.activation
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return nn.ReLU(inplace=True) if name == "relu" else ACTIVATIONS[name]()


class StagedStudent(Student):
    """A student of our own: a walk through named stages, then a linear head.

    Images are normalised with mean 0.5 and standard deviation 0.5 in each channel, which takes
    [0, 1] to the teachers' [-1, 1].
    """

    head: nn.Linear

    def __init__(self, info: StudentInfo, layer: str | None, dims: dict[str, int]) -> None:
        """Take the layers that can meet the teacher, name -> D, in the order of the walk.

        The last of them is PENULTIMATE. Raises UserError for a layer that is none of them.
        """
        super().__init__()
        self.info = info
        self.layer = PENULTIMATE if layer is None else layer
        if self.layer not in dims:
            raise unknown_name(f"layer of {info.name}", self.layer, dims)
        self.feature_dim = dims[self.layer]
        channels = info.image_shape[0]
        self.normalise = Normalise([0.5] * channels, [0.5] * channels)

    @abstractmethod
    def walk(self, x: Float[Tensor, "batch c h w"]) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer's name and its pooled activations (B, D); PENULTIMATE is the last."""

    def features(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d"]:
        # The walk is not continued past the layer: what lies behind it costs nothing.
        return next(pooled for name, pooled in self.walk(self.normalise(x)) if name == self.layer)

    def both(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch classes"]]:
        pooled = dict(self.walk(self.normalise(x)))
        logits: Tensor = self.head(pooled[PENULTIMATE])
        return pooled[self.layer], logits


FAULTS = (
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    torch.jit.Error,
)
"""What a model raises that cannot take what it is given."""
