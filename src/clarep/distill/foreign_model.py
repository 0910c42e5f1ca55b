"""What a classifier of another library becomes: a `Student` of the data's classes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clarep.distill.student import Student, StudentInfo
from clarep.errors import UserError

LOGITS = "logits"
"""The layer of a classifier whose features cannot be got at: its logits stand for them."""


class ForeignNet(nn.Module, ABC):
    """A classifier with its own normalisation; images are float in [0, 1]."""

    layer: str
    """Where its features are taken; LOGITS where they cannot be."""

    @abstractmethod
    def both(self, x: Float[Tensor, "batch c h w"]) -> tuple[Tensor, Tensor]:
        """Return features (B, D) and logits (B, classes) of one pass.

        Whatever the library gives: `ForeignModel.student` refuses answers of other shapes.
        """


@dataclass(frozen=True)
class ForeignModel:
    """A classifier as it was loaded, before it met any data."""

    spec: str
    """What the user called it: hf:PLACE, timm:NAME, torchscript:FILE."""
    net: ForeignNet
    """In evaluation mode, in float32."""
    identity: str
    """What tells it from another of the same weights: its architecture, or its file's SHA-256."""
    class_names: tuple[str, ...] | None
    """In the order of its logits; None where the classes have no names."""
    side: int | None
    """Height and width, in pixels, of the images that it takes; None where it does not say."""

    def is_matched_by_name(self, class_names: Sequence[str]) -> bool:
        """Say whether both have names for their classes, other than numbers."""
        return self.class_names is not None and not _are_numbers(class_names)

    def student(
        self, class_names: Sequence[str], image_shape: tuple[int, int, int]
    ) -> "ForeignStudent":
        """Return it as a student of the data's classes, in evaluation mode.

        Args:
            class_names: the data's; matched with the model's by name where both have names.
            image_shape: (C, H, W) of the data's images; counts where the model has no size.

        Raises:
            UserError: if the classes are others, or the model takes no such images.
        """
        shape = image_shape if self.side is None else (3, self.side, self.side)
        feature_dim, classes = _probe(self, shape)
        columns = _columns(self, classes, class_names)
        info = StudentInfo(self.spec, tuple(class_names), shape)
        return ForeignStudent(info, self, columns, feature_dim).eval()


class ForeignStudent(Student):
    """A classifier that another library made and that clarep does not train."""

    columns: Tensor

    def __init__(
        self, info: StudentInfo, model: ForeignModel, columns: Sequence[int], feature_dim: int
    ) -> None:
        """Take the model and, for each class of `info`, its place among the model's logits."""
        super().__init__()
        self.info, self.layer, self.feature_dim = info, model.net.layer, feature_dim
        self.net = model.net
        self.identity = model.identity
        """What tells it from another of the same weights."""
        self.register_buffer("columns", torch.tensor(columns))

    def features(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d"]:
        return self.both(x)[0]

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        return self.both(x)[1]

    def both(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch classes"]]:
        features, logits = self.net.both(x)
        return features, logits[:, self.columns]


def _are_numbers(class_names: Sequence[str]) -> bool:
    """Say whether the names are 0 to n - 1, in any order: 10 comes before 2 among folders."""
    return set(class_names) == {str(i) for i in range(len(class_names))}


def _probe(model: ForeignModel, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Send two black images through; return D and the number of classes.

    Two, because some models were traced for one image and take no other number.
    """
    channels, height, width = image_shape
    what = f"{model.spec} takes no images of {width}x{height} with {channels} channels"
    try:
        with torch.no_grad():
            features, logits = model.net.both(torch.zeros(2, *image_shape))
    except UserError:
        raise
    except (
        AssertionError,
        AttributeError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
        torch.jit.Error,
    ) as error:
        raise UserError(
            f"{what}, or not two at once ({said_by(error)}): give another --image-size or model"
        ) from error
    if logits.ndim != 2 or len(logits) != 2 or len(features) != 2 or features.ndim != 2:
        raise UserError(
            f"{model.spec} gives an answer of shape {tuple(logits.shape)} for two images: "
            "give a model that classifies images, (B, classes)"
        )
    return features.shape[1], logits.shape[1]


def _columns(model: ForeignModel, classes: int, class_names: Sequence[str]) -> list[int]:
    """Return each of the data's classes' place among the model's logits."""
    own = model.class_names
    if own is not None and len(own) != classes:
        raise UserError(
            f"--class-names gives {len(own)} names and {model.spec} tells {classes} classes "
            "apart: give a name for each of its logits, in their order"
        )
    if classes != len(class_names):
        raise UserError(
            f"{model.spec} tells {classes} classes apart and the data hold {len(class_names)}: "
            "give data of its classes, or another model"
        )
    if _are_numbers(class_names):
        return [int(name) for name in class_names]
    if own is None:
        return list(range(classes))
    place = {name: i for i, name in enumerate(own)}
    for name in class_names:
        if name not in place:
            raise UserError(
                f"{model.spec} knows no class '{name}' of the data (its own are "
                f"{', '.join(own[:3])} ...): give data of its classes, or --class-names with the "
                "data's names in the order of its logits"
            )
    return [place[name] for name in class_names]


def said_by(error: BaseException) -> str:
    """Return what another library's error says, in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
