"""What a classifier of another library becomes: a `Student` of the data's classes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clarep.errors import UserError, said_by
from clarep.students.class_columns import Columns, match_columns
from clarep.students.student import FAULTS, Outputs, Student, StudentInfo

_TINY = torch.finfo(torch.float32).tiny  # of probabilities: no logarithm is infinite


class ForeignNet(nn.Module, ABC):
    """A classifier with its own normalisation; images are float in [0, 1]."""

    layer: str
    """Where its features are taken; LOGITS where they cannot be."""

    @abstractmethod
    def both(self, x: Float[Tensor, "batch c h w"]) -> tuple[Tensor, Tensor]:
        """Return features (B, D) and what it answers with (B, classes) of one pass.

        `ForeignModel.student` refuses answers of other shapes.
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
    """Its own, in the order of its logits; None where the classes have no names."""
    side: int | None
    """Height and width, in pixels, of the images that it takes; None where it does not say."""
    given_names: tuple[str, ...] | None = None
    """Names that the user gives, in the order of its logits."""
    outputs: Outputs = "logits"
    """What it answers with; of probabilities the logarithms are taken."""
    note: str = ""
    """What was done on loading otherwise than one may expect."""

    def student(
        self, class_names: Sequence[str], image_shape: tuple[int, int, int]
    ) -> "ForeignStudent":
        """Return it as a student of the data's classes, in evaluation mode.

        Args:
            class_names: the data's; matched with the model's as `match_columns` does.
            image_shape: (C, H, W) of the data's images; counts where the model has no size.

        Raises:
            UserError: if the classes are others, or the model takes no such images.
        """
        shape = image_shape if self.side is None else (3, self.side, self.side)
        feature_dim, classes = _sizes(self, shape)
        columns, matched = match_columns(
            self.spec, classes, self.class_names, self.given_names, class_names
        )
        info = StudentInfo(self.spec, tuple(class_names), shape)
        return ForeignStudent(info, self, columns, feature_dim, matched).eval()


class ForeignStudent(Student):
    """A classifier that another library made and that clarep does not train."""

    columns: Tensor
    """For each class of `info` the places among the model's logits whose highest counts, (classes,
    most of one); of ImageNet-9 one row more, for all other classes."""

    def __init__(
        self,
        info: StudentInfo,
        model: ForeignModel,
        columns: Columns,
        feature_dim: int,
        matched: str = "",
    ) -> None:
        """Take the model, the logits of each class, and how they were found, in words."""
        super().__init__()
        self.info, self.layer, self.feature_dim = info, model.net.layer, feature_dim
        self.net, self.outputs = model.net, model.outputs
        self.identity = f"{model.identity} {model.outputs}"
        """What tells it from another of the same weights."""
        self.notes = tuple(filter(None, (model.note, matched)))
        most = max(map(len, columns))  # a row's first fills it up: the highest stays the highest
        filled = [row + row[:1] * (most - len(row)) for row in columns]
        self.register_buffer("columns", torch.tensor(filled))

    def features(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d"]:
        return self.both(x)[0]

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch classes"]:
        return self.both(x)[1]

    def both(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch classes"]]:
        features, answers = self.net.both(x)
        if self.outputs == "probabilities":
            answers = answers.clamp_min(_TINY).log()
        return features.float(), answers[:, self.columns].amax(dim=2)

    def answers(self, x: Float[Tensor, "batch c h w"]) -> Tensor:
        return self.net.both(x)[1]


def _sizes(model: ForeignModel, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Send two black images through; return D and the number of the model's classes.

    Two, because some models were traced for one image and take no other number.
    """
    channels, height, width = image_shape
    what = f"{model.spec} takes no images of {width}x{height} with {channels} channels"
    try:
        with torch.no_grad():
            features, logits = model.net.both(torch.zeros(2, *image_shape))
    except UserError as error:
        raise UserError(f"{model.spec}: {error}") from error
    except FAULTS as error:
        raise UserError(
            f"{what}, or not two at once ({said_by(error)}): give another `image_size` or model"
        ) from error
    if logits.ndim != 2 or len(logits) != 2 or len(features) != 2 or features.ndim != 2:
        raise UserError(
            f"{model.spec} gives an answer of shape {tuple(logits.shape)} for two images: "
            "give a model that classifies images, (B, classes)"
        )
    return features.shape[1], logits.shape[1]
