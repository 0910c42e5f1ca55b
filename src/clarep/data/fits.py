"""Whether a model and data, or two models, are of the same classes and images."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from clarep.data.labelled import LabelledImages
from clarep.errors import UserError, check_type

Kind = tuple[Sequence[str], Sequence[int]]
"""Names of the classes in their order, and (C, H, W) of the images."""


@runtime_checkable
class Model(Protocol):
    """What knows classes and takes images: a teacher, or a student's `info`."""

    @property
    def class_names(self) -> Sequence[str]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...


def check_data(data: object) -> None:
    """Raise UserError unless data are a `LabelledImages`."""
    mend = "a LabelledImages, such as load_data('backdrops') or load_data('folder') gives"
    check_type("data", data, LabelledImages, mend)


def kind_of(one: LabelledImages | Model) -> Kind:
    """Return the classes and image shape of a model, or of data, whose first image tells it."""
    if not isinstance(one, LabelledImages):
        return one.class_names, one.image_shape
    height, width, channels = one.read(0).shape
    return one.class_names, (channels, height, width)


def check_alike(whose: str, own: Kind, of: str, wanted: Kind) -> None:
    """Raise UserError unless classes, in their order, and images are the same.

    whose: whose they are, such as "the student's"; of: what they must be those of.
    """
    (names, shape), (wanted_names, wanted_shape) = own, wanted
    if list(names) != list(wanted_names):
        pairs = zip(names, wanted_names, strict=False)
        found = next((f"'{a}' there, '{b}' here" for a, b in pairs if a != b), "")
        if len(names) != len(wanted_names):
            found = f"{len(names)} classes there, {len(wanted_names)} here"
        raise UserError(
            f"{whose} classes are not those of {of} ({found}): give one of these classes, in this "
            "order, or name those of a teacher or of another library's classifier with "
            "`class_names`"
        )
    if tuple(shape) != tuple(wanted_shape):
        raise UserError(
            f"{whose} images are {'x'.join(map(str, shape))} (channels x height x width) and those "
            f"of {of} {'x'.join(map(str, wanted_shape))}: give `image_size={shape[1]}`, or one of "
            "that size"
        )
