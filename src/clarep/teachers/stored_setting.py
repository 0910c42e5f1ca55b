"""CLARID's setting of a bundled teacher, as `clarep select` found it and its card keeps it.

`tools/store_setting.py` writes it. It belongs to the weights: a teacher that was trained again
under the same name has none until it is measured again.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from clarep.engine.artefacts import read_json
from clarep.teachers.teacher import Teacher

CARD_KEY = "setting"


@dataclass(frozen=True)
class FoundSetting:
    """Where a teacher's latents were found to be canonical."""

    t: float
    """Share of the teacher's time axis."""
    tap: str
    k: int
    """Directions projected out."""
    branch: str
    """Label under which the Jacobian was taken."""
    stands: bool
    """Whether the class surely stands in the latent; else it is the least harmful measured."""
    reason: str
    """In one sentence."""
    by: str
    """What measured it: a command, or a few images."""


def assets() -> Path:
    """Return the folder of the bundled teachers and their cards."""
    return Path(str(files("clarep.teachers") / "assets"))


def stored_setting(teacher: Teacher) -> FoundSetting | None:
    """Return the setting that is stored for these weights, None if there is none."""
    for card in sorted(assets().glob("*.json")):
        known: dict[str, Any] = read_json(card)
        if known["weights"]["sha256"] == teacher.fingerprint and CARD_KEY in known:
            return FoundSetting(**known[CARD_KEY])
    return None
