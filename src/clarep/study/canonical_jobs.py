"""The canonical sets of a study: what their content follows from, and how they are built."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.clarid import Clarid, ClaridConfig
from clarep.clarid.clarid_config import AT_ONCE, stored_in_full, stored_in_short
from clarep.clarid.directions import Kind
from clarep.clarid.identify import SHARD_SIZE, identify_steps
from clarep.clarid.set_pictures import read_pictures
from clarep.data.class_balance import class_balanced_choice
from clarep.data.labelled import LabelledImages
from clarep.data.load import DataConfig
from clarep.engine.artefacts import Progressed
from clarep.engine.identity import address, differences, plain
from clarep.errors import UserError
from clarep.teachers.teacher import Teacher
from clarep.teachers.zoo import sources

_CONTENT = ("data_sha256", "seed", "chosen", "shard_size", "teacher_sha256")


@dataclass(frozen=True, eq=False)
class TeacherJob:
    """What a teacher is asked about images, and where the answers are kept."""

    store: Path  # folder above its own
    spec: str  # the teacher as the user named it
    teacher: Teacher  # the same, loaded
    teacher_options: Mapping[str, Any]  # recorded; they enter its fingerprint too
    options: DataConfig  # the images as the user named them
    data: LabelledImages  # the same, loaded

    @property
    def reads(self) -> tuple[Path, ...]:
        """Folders of jobs that come before it: none."""
        return ()

    def described(self) -> dict[str, Any]:
        """Return what a manifest tells of where teacher and images were found."""
        return sources(self.spec, self.options, self.teacher_options)


@dataclass(frozen=True, eq=False)
class SetJob(TeacherJob):
    """A canonical set, and all that its content follows from."""

    clarid: ClaridConfig  # how CLAReps are found
    chosen: tuple[int, ...] = ()  # which of the images, as indices
    data_sha256: str = ""  # of these and their labels
    fraction: float | None = None  # the share of every class that they are, where it is known
    seed: int = 0  # of the solver's start and of random directions
    shard_size: int = SHARD_SIZE  # images a shard
    existing: Path | None = None  # where it is already, if it is not the study's own
    unit = "images"
    kind = "canonical set"

    @property
    def name(self) -> str:
        """Kind of directions, plain reconstructions by that name."""
        plain_copy = self.clarid.kind == "none" and self.clarid.guidance == 1.0
        return "reconstruction" if plain_copy else self.clarid.kind

    @cached_property
    def address(self) -> str:
        """What stands for its content."""
        content = {name: getattr(self, name) for name in _CONTENT if name != "teacher_sha256"}
        of_teacher = {"teacher_sha256": self.teacher.fingerprint}
        return _address_of(content | of_teacher | {"clarid": plain(self.clarid)})

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        return self.existing or self.store / f"{self.name}-{self.address}"

    def of_share(self, fraction: float, seed: int) -> "SetJob":
        """Return the set of a random share of every class."""
        chosen = class_balanced_choice(self.data.labels, fraction, seed)
        indices, content = tuple(chosen.tolist()), self.data.sha256(chosen)
        return replace(self, chosen=indices, data_sha256=content, fraction=fraction, seed=seed)

    def existing_in(self, folder: Path) -> "SetJob":
        """Return the existing set of CLARID's own directions in a folder.

        Raises UserError if there is no whole set, it holds other directions, or it was made with
        another teacher or of other images or labels than these.
        """
        stored = CanonicalSet.load(folder).manifest["config"]
        clarid = ClaridConfig(**stored_in_full(stored["clarid"]))
        if clarid.kind != "top":
            raise UserError(
                f"{folder} holds {clarid.kind} directions and [canonical] top takes CLARID's own: "
                "give a set that was made with `kind=top`"
            )
        chosen = stored["chosen"]
        ours = {
            "teacher": self.spec,
            "teacher_sha256": self.teacher.fingerprint,
            "data_options": plain(self.options),
            "data_sha256": self.data.sha256(chosen) if max(chosen) < len(self.data) else None,
        }
        if difference := differences({key: stored.get(key) for key in ours}, ours):
            raise UserError(
                f"{folder} was made with another teacher or of other images than the recipe's "
                f"({difference}): give the same, or another set"
            )
        same = {name: stored[name] for name in ("data_sha256", "seed", "shard_size")}
        told = {name: stored[name] for name in ("fraction", "teacher_options") if name in stored}
        settings = {"fraction": None, "teacher_options": {}, **same, **told, "clarid": clarid}
        return replace(self, **settings, chosen=tuple(chosen), existing=folder)

    def of(self, kind: Kind, guidance: float | None) -> "SetJob":
        """Return the set of other directions, and another guidance if one is given."""
        kept = self.clarid.guidance if guidance is None else guidance
        clarid = replace(self.clarid, kind=kind, guidance=kept)
        return self if clarid == self.clarid else replace(self, clarid=clarid, existing=None)

    def is_done(self) -> bool:
        """Tell whether the folder holds the whole set, undamaged, and of these settings.

        A set of the study's own has its pictures too.
        """
        try:
            found = CanonicalSet.load(self.folder)
            if self.existing is None:
                read_pictures(found)
            return _address_of(found.manifest["config"]) == self.address
        except (UserError, KeyError):
            return False

    def build(self) -> Iterator[Progressed]:
        """Build it, yielding after each shard."""
        described = self.described()
        if self.fraction is not None:
            described["fraction"] = self.fraction
        yield from identify_steps(
            Clarid(self.teacher, self.clarid),
            self.data,
            self.folder,
            self.chosen,
            described=described,
            seed=self.seed,
            shard_size=self.shard_size,
        )


def _address_of(config: Mapping[str, Any]) -> str:
    """Return the address of what a manifest's configuration describes."""
    clarid = stored_in_short(config["clarid"])
    setting = {name: value for name, value in clarid.items() if name not in AT_ONCE}
    return address({name: config[name] for name in _CONTENT} | {"clarid": setting})
