"""Two students side by side: where they disagree, and what each looks at."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from clarep.data.labelled import LabelledImages
from clarep.errors import UserError
from clarep.explore.explorer import Chosen, Explorer, Setting
from clarep.report.html.sections.object_sections import heat
from clarep.robustness.focus import saliency_maps
from clarep.robustness.student_and_data import student_and_data
from clarep.robustness.suite.suite_config import SuiteConfig
from clarep.robustness.tested_student import Subject, choose_images
from clarep.students.student import Student

MOST_IMAGES = 500
"""Test images on which two students are compared, evenly from the classes."""
Where = Literal["only the first is right", "only the second is right", "both err, differently"]
WHERES: tuple[Where, ...] = (
    "only the first is right",
    "only the second is right",
    "both err, differently",
)


@dataclass(frozen=True)
class Answer:
    """What one student says of one image."""

    said: str
    """The class, and how sure it is."""
    right: bool
    saliency: UInt8[Tensor, "3 h w"]


class StudentPair:
    """Two runs of students on the test images of the first.

    Raises:
        UserError: for a folder without a student, or students of other images or classes.
    """

    def __init__(self, runs: tuple[Path, Path]) -> None:
        first, second = (student_and_data(str(run), {}, None, SuiteConfig()) for run in runs)
        self.data: LabelledImages = first.data
        if first.student.info.image_shape != second.student.info.image_shape or (
            first.data.class_names != second.data.class_names
        ):
            raise UserError(
                f"{runs[0]} and {runs[1]} are students of other images or classes: give two that "
                "were trained on data of one kind"
            )
        self.names = _told_apart(*runs)
        self.subjects = tuple(_asked(one.student) for one in (first, second))
        self.indices = choose_images(self.data.labels, MOST_IMAGES, 0)
        seen = [subject.predict(self.data.images(self.indices)) for subject in self.subjects]
        self.seen = torch.stack(seen).numpy()
        """The class that each sees in each image, (2, n)."""

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Share of the images that each is right on."""
        shares: NDArray[np.float64] = (self.seen == self._truth).mean(axis=1)
        return shares

    def disagreements(self, where: Where) -> list[int]:
        """Return the images on which they disagree in one way, as indices of the data."""
        right = self.seen == self._truth
        found = {
            WHERES[0]: right[0] & ~right[1],
            WHERES[1]: right[1] & ~right[0],
            WHERES[2]: ~right.any(axis=0) & (self.seen[0] != self.seen[1]),
        }
        return [int(i) for i in self.indices[found[where]]]

    def answers(self, pixels: UInt8[Tensor, "c h w"], label: int) -> list[Answer]:
        """Return what both say of an image."""
        return [self._answer(subject, pixels[None], label) for subject in self.subjects]

    def _answer(self, subject: Subject, image: Tensor, label: int) -> Answer:
        sure, seen = subject.both(image)[1].softmax(1)[0].max(0)
        saliency = heat(saliency_maps(subject, image)[0].double().numpy())
        return Answer(
            said=f"{self.data.class_names[int(seen)]}, {float(sure):.0%} sure",
            right=int(seen) == label,
            saliency=torch.from_numpy(saliency).permute(2, 0, 1),
        )

    def chosen(self, explorer: Explorer, index: int) -> Chosen:
        """Return a test image as the explorer takes it; raises UserError where it cannot."""
        name = self.data.class_names[self.data.labels[index]]
        if name not in explorer.teacher.class_names:
            raise UserError(f"the teacher knows no class {name}, so that it can swap nothing here")
        pixels = self.data.images([index])[0]
        label = explorer.teacher.class_names.index(name)
        return Chosen(pixels, label, self.data.sources[index])

    def swap(
        self, explorer: Explorer, setting: Setting, index: int
    ) -> tuple[Chosen, UInt8[Tensor, "c h w"]]:
        """Return a donor of another class, and the image with the donor's part.

        The donor is the next test image of another class.
        """
        at = int(np.flatnonzero(self.indices == index)[0])
        later = np.roll(self.indices, -at)
        others = later[self.data.labels[later] != self.data.labels[index]]
        if not len(others):
            raise UserError("the test images have one class, and a swap takes a donor of another")
        image, donor = (self.chosen(explorer, int(i)) for i in (index, others[0]))
        plain = replace(setting, guidance=1.0)
        return donor, explorer.swapped(image, donor, plain)

    @property
    def _truth(self) -> NDArray[np.int64]:
        return self.data.labels[self.indices]


def _asked(student: Student) -> Subject:
    student.requires_grad_(False)
    return Subject(student.eval()).eval()


def _told_apart(first: Path, second: Path) -> tuple[str, str]:
    """Return the names of two runs; where these are the same, with the folder above."""
    names = first.resolve().name, second.resolve().name
    if names[0] != names[1]:
        return names
    return (
        f"{first.resolve().parent.name}/{names[0]}",
        f"{second.resolve().parent.name}/{names[1]}",
    )
