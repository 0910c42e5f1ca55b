"""The canonical sets of a study: their settings, their addresses, and how they are built."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.clarid_config import AT_ONCE
from clarep.clarid.directions import Kind
from clarep.clarid.identify import SHARD_SIZE, identify
from clarep.data.labelled import LabelledImages, class_balanced_choice
from clarep.data.load import DataConfig, stored_options
from clarep.engine.artefacts import Progressed, differences
from clarep.engine.identity import address, in_full, plain, shortened
from clarep.errors import UserError
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import stored_spec

_CONTENT = ("data_sha256", "clarid", "seed", "chosen", "shard_size", "teacher_sha256")


@dataclass(frozen=True)
class SetSettings:
    """All that a canonical set's content follows from."""

    teacher: str
    """As the user named it."""
    teacher_sha256: str
    """Of its weights."""
    data: DataConfig
    """The images, as the user named them."""
    data_sha256: str
    """Of the chosen images and their labels."""
    chosen: tuple[int, ...]
    """Which of them, as indices."""
    fraction: float | None
    """The share of every class that they are, where it is known."""
    clarid: ClaridConfig
    """How their CLAReps are found."""
    seed: int
    """Of the solver's start and of random directions."""
    shard_size: int = SHARD_SIZE
    """Images a shard."""
    teacher_options: Mapping[str, Any] = field(default_factory=dict)
    """What `recorded` gave of the teacher's options; they enter its SHA-256 too."""

    @property
    def address(self) -> str:
        """What stands for the set's content."""
        return _address_of(plain(self))

    @property
    def kind(self) -> str:
        """Kind of directions, plain reconstructions by that name."""
        plain_copy = self.clarid.kind == "none" and self.clarid.guidance == 1.0
        return "reconstruction" if plain_copy else self.clarid.kind

    def of(self, kind: Kind, guidance: float | None) -> "SetSettings":
        """Return these settings with other directions, and another guidance if one is given."""
        kept = self.clarid.guidance if guidance is None else guidance
        return replace(self, clarid=replace(self.clarid, kind=kind, guidance=kept))

    def is_built(self, folder: Path) -> bool:
        """Tell whether the folder holds the whole set, undamaged, and of these settings."""
        try:
            return _address_of(CanonicalSet.load(folder).manifest["config"]) == self.address
        except (UserError, KeyError):
            return False

    def build(self, teacher: Teacher, data: LabelledImages, folder: Path) -> Iterator[Progressed]:
        """Build the set in the folder or go on with it, yielding after each shard."""
        described: dict[str, Any] = {
            "teacher": stored_spec(self.teacher),
            "data_options": stored_options(self.data),
        }
        if self.fraction is not None:
            described["fraction"] = self.fraction
        if self.teacher_options:
            described["teacher_options"] = dict(self.teacher_options)
        yield from identify(
            Clarid(teacher, self.clarid),
            data,
            np.array(self.chosen, np.int64),
            described,
            folder,
            seed=self.seed,
            shard_size=self.shard_size,
        )


def _address_of(config: dict[str, Any]) -> str:
    """Return the address of what a manifest's configuration describes."""
    clarid = shortened(ClaridConfig, config["clarid"])
    setting = {name: value for name, value in clarid.items() if name not in AT_ONCE}
    return address({name: config[name] for name in _CONTENT} | {"clarid": setting})


def new_set(
    spec: str,
    teacher: Teacher,
    config: DataConfig,
    data: LabelledImages,
    *,
    fraction: float,
    clarid: ClaridConfig,
    seed: int,
    teacher_options: Mapping[str, Any],
) -> SetSettings:
    """Return the settings of a set of a random share of every class."""
    chosen = class_balanced_choice(data.labels, fraction, seed)
    return SetSettings(
        teacher=spec,
        teacher_sha256=teacher.fingerprint,
        data=config,
        data_sha256=data.sha256(chosen),
        chosen=tuple(chosen.tolist()),
        fraction=fraction,
        clarid=clarid,
        seed=seed,
        teacher_options=teacher_options,
    )


def settings_of(
    folder: Path, spec: str, teacher: Teacher, config: DataConfig, data: LabelledImages
) -> SetSettings:
    """Return the settings that an existing set of CLARID's own directions was made with.

    Raises UserError if there is no whole set, it holds other directions, or it was made with
    another teacher or of other images or labels than these.
    """
    stored = CanonicalSet.load(folder).manifest["config"]
    clarid = ClaridConfig(**in_full(ClaridConfig, stored["clarid"]))
    if clarid.kind != "top":
        raise UserError(
            f"{folder} holds {clarid.kind} directions and [canonical] top takes CLARID's own: "
            "give a set that was made with `kind=top`"
        )
    if stored["teacher_sha256"] != teacher.fingerprint:
        raise UserError(
            f"{folder} was made with the teacher '{stored.get('teacher')}' and the recipe's "
            f"teacher is '{spec}': give the same teacher, or another set"
        )
    chosen = stored["chosen"]
    theirs = {key: stored.get(key) for key in ("data_options", "data_sha256")}
    content = data.sha256(chosen) if max(chosen) < len(data) else None
    if difference := differences(theirs, {"data_options": plain(config), "data_sha256": content}):
        raise UserError(
            f"{folder} was made of other images than the recipe's [data] ({difference}): "
            "give the same data, or another set"
        )
    return SetSettings(
        teacher=spec,
        teacher_sha256=teacher.fingerprint,
        data=config,
        data_sha256=stored["data_sha256"],
        chosen=tuple(chosen),
        fraction=stored.get("fraction"),
        clarid=clarid,
        seed=stored["seed"],
        shard_size=stored["shard_size"],
        teacher_options=stored.get("teacher_options", {}),
    )
