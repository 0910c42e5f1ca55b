"""`clarep export`: a teacher as diffusers has them, or a model or set as the hub has them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from clarep.errors import UserError
from clarep.report.hub_folder import README, push_to_hub, write_hub_folder
from clarep.teachers.export_unet import export_diffusers
from clarep.teachers.families import FAMILIES
from clarep.teachers.unet_teacher import card_of, load_unet
from clarep.teachers.zoo import BUNDLED, teacher_path


@dataclass(frozen=True)
class Export:
    """Write a folder that others take: of diffusers' layout, or the Hugging Face hub's.

    diffusers: a teacher of clarep's own, which loads without clarep; the folder brings the
    network's code, weights, sampler, class names, and a README that says how to load it; clarep
    loads it back as diffusers:FOLDER. hub: a student, a teacher or a canonical set with a card of
    what was measured; from_pretrained loads it back in Python.
    """

    teacher: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TEACHER")]
    """A bundled teacher's name, or a path to a teacher.safetensors or its folder; with --format
    hub a run of clarep distill or clarep identify too."""
    format: Literal["diffusers", "hub"] = "diffusers"
    """Whose layout the folder has."""
    out: Path = Path("runs/export")
    """Folder to write: new, empty, or of an earlier export of diffusers' layout."""
    push: str | None = None
    """OWNER/NAME on the Hugging Face hub that it is put into instead, with --format hub."""
    json: bool = False
    """Print one JSON object instead of lines."""

    def run(self) -> None:
        """Write the folder and say where it is."""
        if self.format == "hub":
            self._to_hub()
            return
        if self.push is not None:
            raise UserError(f"`push={self.push}` needs --format hub: give it, or leave this out")
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

    def _to_hub(self) -> None:
        if self.push is not None:
            if self.out != type(self).out:
                raise UserError(f"`push={self.push}` writes no folder: leave out `out`, or this")
            where = push_to_hub(self.teacher, self.push)
            print(json.dumps({"pushed": where}) if self.json else f"put into {where}")
            return
        kind = write_hub_folder(self.teacher, self.out)
        if self.json:
            print(json.dumps({"wrote": {"folder": str(self.out)}}))
            return
        print(f"a {kind} repository's folder in {self.out}, its card in {self.out / README}")
