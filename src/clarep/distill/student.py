"""`Student`: what every classifier is to the rest of clarep."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class StudentInfo:
    """What must be known of a student to build it again and to feed it."""

    name: str
    """Architecture: a name of `STUDENTS`, or timm:NAME."""
    class_names: tuple[str, ...]
    """Names of the classes, in the order of the logits."""
    image_shape: tuple[int, int, int]
    """(C, H, W) of the images that it takes."""


class Student(nn.Module, ABC):
    """A classifier with a feature tap. Images are float in [0, 1]; it normalises them itself."""

    info: StudentInfo

    @abstractmethod
    def features(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d"]:
        """Return the activations at the layer that meets the teacher, pooled, (B, D)."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        """Return the logits."""

    @abstractmethod
    def both(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch classes"]]:
        """Return features and logits of one pass."""
