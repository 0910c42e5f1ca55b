"""`clarep doctor`: what clarep makes of a teacher, and what CLARID with it will cost here."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from clarep.clarid.clarid import ClaridConfig
from clarep.cli.option_groups import DataOptionsGroup, TeacherGroup, TeacherSpec
from clarep.cli.terminal import in_own_options, note
from clarep.data.load import DataConfig, DataOptions
from clarep.engine.bounds import Within
from clarep.engine.flags import flags
from clarep.errors import UserError
from clarep.select.examination import page
from clarep.select.teacher_check import examine
from clarep.teachers.options import TeacherOptions


@dataclass(frozen=True)
class Doctor:
    """Load a teacher and try all that CLARID needs of it, on a few images.

    Prints what it is, how it can be differentiated, its round trip, whether it knows its classes,
    and what CLARID costs here.
    """

    teacher: TeacherSpec = "backdrops"
    teacher_options: TeacherGroup = field(default_factory=TeacherOptions)
    data: str | None = None
    """Images to try it on, of its classes: a name or a path as of clarep identify; without it
    bundled ones."""
    data_options: DataOptionsGroup = field(default_factory=DataOptions)
    image: Path | None = None
    """Instead: an image to try it on, as one of the first class."""
    t: float | None = None
    """Noise level, as a share of the teacher's time axis; without it, CLARID's default."""
    sigma: float | None = None
    """Noise level as it is; instead of --t."""
    tap: str = "mid"
    """Layer whose Jacobian is taken; mid is the family's default."""
    k: int | float | str = 0.04
    """Directions: a number, a share of the latent's dimension, or energy:SHARE."""
    guidance: float | None = None
    """Guidance of the decoding; without it 3, CLARID's default, or 1 where the teacher has no null
    class."""
    for_images: Annotated[int, Within(1)] = 500
    """For how many images the cost of CLARID is extrapolated."""
    batch_size: Annotated[int, Within(1)] = 25
    """Images that clarep identify will take through the teacher at once."""
    json: bool = False
    """Print one JSON object at the end instead of lines as they are found."""

    def run(self) -> None:
        """Try one thing after another, and say what was found."""
        if self.data is None and (given := flags(self.data_options)):
            raise UserError(f"{given.strip()} says how --data is read: give --data too")
        if self.data is not None and self.image is not None:
            raise UserError("--data and --image are both given: give one of them")
        data = None
        if self.data is not None:
            data = DataConfig(data=self.data, **vars(self.data_options))
        names = ("t", "sigma", "tap", "k", "batch_size")
        findings = examine(
            self.teacher,
            self.teacher_options,
            ClaridConfig(**{name: getattr(self, name) for name in names}),
            guidance=self.guidance,
            data=data,
            image=self.image,
            for_images=self.for_images,
            tell=note,
        )

        def write(line: str) -> None:
            if not self.json:
                print(in_own_options(line), flush=True)

        answer = page(findings, write)
        if self.json:
            print(json.dumps(answer, indent=2))
