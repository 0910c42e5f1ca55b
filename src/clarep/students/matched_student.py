"""A classifier some of whose logits stand for the data's classes: of clarep's own or another's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clarep.students.class_columns import Columns, few, match_columns
from clarep.students.module_student import Both, sizes
from clarep.students.student import Outputs, Student, StudentInfo
from clarep.teachers.classes_by_name import by_name

_TINY = torch.finfo(torch.float32).tiny  # of probabilities: no logarithm is infinite


@dataclass(frozen=True)
class WholeModel:
    """A classifier as it was loaded, before it met any data."""

    spec: str
    """What the user called it: hf:PLACE, timm:NAME, torchscript:FILE."""
    both: Both
    """Features, and what it answers with."""
    layer: str
    """Where its features are taken; LOGITS where they cannot be."""
    parts: Mapping[str, nn.Module] = field(default_factory=dict)
    """The networks that `both` runs, in evaluation mode, in float32."""
    identity: str = ""
    """What tells it from another of the same weights: its architecture, or its file's SHA-256."""
    class_names: tuple[str, ...] | None = None
    """Its own, in the order of its logits; None where the classes have no names."""
    side: int | None = None
    """Height and width, in pixels, of the images that it takes; None where it does not say."""
    given_names: tuple[str, ...] | None = None
    """Names that the user gives, in the order of its logits."""
    outputs: Outputs = "logits"
    """What it answers with; of probabilities the logarithms are taken."""
    note: str = ""
    """What was done on loading otherwise than one may expect."""

    def student(
        self, class_names: Sequence[str], image_shape: tuple[int, int, int]
    ) -> "MatchedStudent":
        """Return it as a student of the data's classes, in evaluation mode.

        Args:
            class_names: the data's; matched with the model's as `match_columns` does.
            image_shape: (C, H, W) of the data's images; counts where the model has no size.

        Raises:
            UserError: if the classes are others, or the model takes no such images.
        """
        shape = image_shape if self.side is None else (3, self.side, self.side)
        feature_dim, classes = sizes(self.spec, self.both, shape)
        columns, matched = match_columns(
            self.spec, classes, self.class_names, self.given_names, class_names
        )
        info = StudentInfo(self.spec, tuple(class_names), shape)
        return MatchedStudent(info, self, columns, feature_dim, matched).eval()


class MatchedStudent(Student):
    """A model as a student of the data's classes; it is measured and never trained."""

    columns: Tensor
    """For each class of `info` the places among the model's logits whose highest counts, (classes,
    most of one); of ImageNet-9 one row more, for all other classes."""

    def __init__(
        self,
        info: StudentInfo,
        model: WholeModel,
        columns: Columns,
        feature_dim: int,
        matched: str = "",
    ) -> None:
        """Take the model, the logits of each class, and how they were found, in words."""
        super().__init__()
        self.info, self.layer, self.feature_dim = info, model.layer, feature_dim
        self.net, self.outputs, self._both = nn.ModuleDict(model.parts), model.outputs, model.both
        self.identity = model.identity and f"{model.identity} {model.outputs}"
        self.notes = tuple(filter(None, (model.note, matched)))
        most = max(map(len, columns))  # a row's first fills it up: the highest stays the highest
        filled = [row + row[:1] * (most - len(row)) for row in columns]
        self.register_buffer("columns", torch.tensor(filled))

    def both(
        self, x: Float[Tensor, "batch c h w"]
    ) -> tuple[Float[Tensor, "batch d"], Float[Tensor, "batch classes"]]:
        features, answers = self._both(x)
        if self.outputs == "probabilities":
            answers = answers.clamp_min(_TINY).log()
        return features.float(), answers[:, self.columns].amax(dim=2)

    def answers(self, x: Float[Tensor, "batch c h w"]) -> Tensor:
        return self._both(x)[1]


def student_of(student: Student, class_names: Sequence[str]) -> Student:
    """Return a student of clarep's own with the data's classes, by name, where it knows them all.

    Otherwise, and where they are its own in their order, itself. Raises UserError as `by_name`.
    """
    own = student.info.class_names
    numbers = all(name.isdecimal() for name in class_names)
    places = None if numbers or own == tuple(class_names) else by_name(own, class_names)
    if places is None:
        return student
    said = ""
    if len(places) < len(own):
        said = f"{few('the student', len(own), class_names)}chosen by name"
    info = replace(student.info, class_names=tuple(class_names))
    whole = WholeModel(info.name, student.both, student.layer, {"whole": student})
    return MatchedStudent(info, whole, [[place] for place in places], student.feature_dim, said)
