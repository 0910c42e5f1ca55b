"""Classes found by name: a few of a model's where data hold no more, and all their names are known.

A name may hold several, which commas divide ("tench, Tinca tinca").
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from clarep.errors import UserError
from clarep.teachers.options import joint_fingerprint
from clarep.teachers.teacher import Teacher

_KEPT = (
    "latent_shape", "image_shape", "sigma_min", "sigma_max", "default_tap", "has_null", "device",
    "dtype",
)  # fmt: skip


def synonyms(name: str) -> set[str]:
    """Return a name, and those that commas divide it into."""
    return {name, *(part.strip() for part in name.split(","))}


def by_name(names: Sequence[str], class_names: Sequence[str]) -> list[int] | None:
    """Return the place of each class among a model's names; None where one of them is unknown.

    Raises UserError for a class that is the name of several, and for two that are the same.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        for one in synonyms(name):
            places.setdefault(one, []).append(i)
    found = [places.get(name, []) for name in class_names]
    if not all(found):
        return None
    taken: dict[int, str] = {}
    for name, at in zip(class_names, found, strict=True):
        if len(at) > 1:
            raise UserError(
                f"'{name}' is the name of {len(at)} classes of the model, {at[0]} and {at[1]}: "
                "give `class_names` with a name for each"
            )
        if at[0] in taken:
            raise UserError(
                f"'{taken[at[0]]}' and '{name}' are both class {at[0]} of the model: "
                "give data that hold each class once"
            )
        taken[at[0]] = name
    return [at[0] for at in found]


def of_classes(teacher: Teacher, class_names: Sequence[str]) -> Teacher:
    """Return the teacher with these classes alone, where it has more and knows all their names.

    Otherwise itself: labels are matched by position then. Raises UserError as `by_name`, and for
    a few numbers that are neither its names nor 0, 1, 2 ...: by position 207 would be class 0.
    """
    if not 0 < len(class_names) < teacher.num_classes:
        return teacher
    places = by_name(teacher.class_names, class_names)
    if places is not None:
        return _FewClasses(teacher, class_names, places)
    numbers = all(name.isdecimal() for name in class_names)
    if numbers and any(int(name) != i for i, name in enumerate(class_names)):
        raise UserError(
            f"the data's classes are the numbers {', '.join(class_names[:3])} ... and the teacher "
            f"has {teacher.num_classes} others, {', '.join(teacher.class_names[:3])} ...: give the "
            "data's classes the teacher's names"
        )
    return teacher


class _FewClasses(Teacher):
    """A teacher with some of its classes, in another order."""

    def __init__(self, whole: Teacher, class_names: Sequence[str], places: Sequence[int]) -> None:
        for name in _KEPT:
            setattr(self, name, getattr(whole, name))
        self.whole = whole
        self.class_names, self.null_label = tuple(class_names), len(class_names)
        self._own_labels = torch.tensor([*places, whole.null_label])
        self.fingerprint = joint_fingerprint(whole.fingerprint, *map(str, places))

    def taps(self) -> dict[str, tuple[int, int]]:
        return self.whole.taps()

    def condition(self, labels: Int64[Tensor, " batch"]) -> Tensor:
        return self.whole.condition(self._own_labels.to(labels.device)[labels])

    def denoise(
        self, x: Float[Tensor, "batch c h w"], sigma: Float[Tensor, " batch"], cond: Tensor
    ) -> Float[Tensor, "batch c h w"]:
        return self.whole.denoise(x, sigma, cond)

    def features(
        self,
        x: Float[Tensor, "batch c h w"],
        sigma: Float[Tensor, " batch"],
        cond: Tensor,
        tap: str,
    ) -> Float[Tensor, "batch *feature"]:
        return self.whole.features(x, sigma, cond, tap)

    def sigma_from_t(self, t: float) -> float:
        return self.whole.sigma_from_t(t)

    def encode(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        return self.whole.encode(images)

    def decode(self, latents: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        return self.whole.decode(latents)

    def guide(
        self,
        null: Float[Tensor, "batch c h w"],
        given: Float[Tensor, "batch c h w"],
        guidance: float,
    ) -> Float[Tensor, "batch c h w"]:
        return self.whole.guide(null, given, guidance)

    def check_null(self) -> None:
        self.whole.check_null()
