"""`clarep export`: one of our own teachers as a folder that others load without clarep."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from clarep.errors import UserError
from clarep.teachers.export_unet import export_diffusers
from clarep.teachers.families import FAMILIES
from clarep.teachers.unet_teacher import card_of, load_unet
from clarep.teachers.zoo import BUNDLED, teacher_path


@dataclass(frozen=True)
class Export:
    """Write a teacher of clarep's own as a folder of diffusers', which loads without clarep.

    The folder brings the network's code, weights, sampler, class names, and a README that says
    how to load it; clarep loads it back as diffusers:FOLDER.
    """

    teacher: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEACHER")]
    """A bundled teacher's name, or a path to a teacher.safetensors or its folder."""
    format: Literal["diffusers"] = "diffusers"
    """Whose layout the folder has."""
    out: Path = Path("runs/export")
    """Folder to write: new, empty, or of an earlier export."""
    json: bool = False
    """Print one JSON object instead of lines."""

    def run(self) -> None:
        """Write the folder and say where it is."""
        family, colon, _ = self.teacher.partition(":")
        if colon and family in FAMILIES:
            raise UserError(
                f"{self.teacher} is a checkpoint of another family: clarep export takes clarep's "
                "own teachers, a bundled name or what clarep train-teacher wrote"
            )
        weights = teacher_path(self.teacher)
        bundled = self.teacher in BUNDLED
        card = card_of(weights)
        export_diffusers(
            load_unet(weights),
            self.out,
            self.teacher if bundled else weights.parent.resolve().name,
            "mit" if bundled else None,
            card if card.exists() else None,
        )
        if self.json:
            print(json.dumps({"wrote": {"folder": str(self.out)}}))
            return
        print(f"{self.format} folder in {self.out}")
        print(f"how to load it in {self.out / 'README.md'}")
        print(f"clarep loads it back with --teacher diffusers:{self.out}")
