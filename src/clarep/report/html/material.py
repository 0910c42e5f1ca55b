"""What every section is made from, and what a section is."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from clarep.clarid.canonical_set import CanonicalSet
from clarep.clarid.set_pictures import SetPictures
from clarep.report.html.charts import Series, legend
from clarep.report.html.markup import Downloads
from clarep.report.html.run_folders import Group, ReportRun
from clarep.robustness.measures import MEASURE_GROUPS, MEASURES, measure_of
from clarep.study.runs import groups_of

NO_OBJECTS = (
    "Nothing is measured here: it needs masks or boxes that tell objects from their background."
)


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    key: str
    """Its anchor."""
    title: str
    html: str
    missing: tuple[str, ...] = ()
    """What could not be shown and which command gives it, a sentence each."""


@dataclass(frozen=True)
class Material:
    """All that was read, and the numbers gathered for taking away."""

    runs: Sequence[ReportRun]
    groups: Sequence[Group]
    canon: CanonicalSet | None
    canon_missing: str
    """That there is no canonical set, why, and what gives one; empty if there is one."""
    pictures: SetPictures | None
    pictures_missing: tuple[str, ...]
    """Why there are none, in a sentence, where there is a set."""
    downloads: Downloads = field(default_factory=Downloads)

    @property
    def single(self) -> list[Group]:
        """The evaluated groups of one seed, whose intervals say nothing of other seeds."""
        return [group for group in self.measured if len(group.runs) == 1]

    @property
    def measured(self) -> list[Group]:
        """The groups of which at least one run was evaluated."""
        return [group for group in self.groups if group.evaluations]

    def keys(self, *groups: str) -> list[str]:
        """Return all measured keys of these groups, each once, in the catalogue's order."""
        found = (m.key for g in self.groups for e in g.evaluations for m in e.measurements)
        keys = [key for key in dict.fromkeys(found) if measure_of(key).group in groups]
        return sorted(keys, key=lambda key: MEASURES.index(measure_of(key)))

    def lacking(self, group: str) -> tuple[str, ...]:
        """Say which evaluated runs have no figure of a group, though one could be measured.

        What was asked for and is not there cannot be measured on their data.
        """
        found = [(run, run.evaluation) for run in self.runs if run.evaluation is not None]
        unasked = [pair for pair in found if group not in (groups_of(pair[1]) or ())]
        if len(unasked) < len(found) and not self.keys(group):
            return ()
        poor = [
            run
            for run, evaluation in unasked
            if all(measure_of(m.key).group != group for m in evaluation.measurements)
        ]
        if not poor or not self.measured:
            return ()
        names = ", ".join(run.name for run in poor)
        # a folder without a student's settings is of a model that only its user can name
        command = f"`clarep evaluate {poor[0].folder}`"
        again = command if poor[0].config else "the command that measured the rest, for all groups,"
        title = MEASURE_GROUPS[group].title
        return (f"{title} not measured on {names}: {again} measures it",)

    def legend(self) -> str:
        """Return the evaluated methods with their colours and markers."""
        return legend([(group.label, group.css, group.slot) for group in self.measured])


def series_of(group: Group) -> Series:
    """Return a group's name, colour and marker, without points yet."""
    return Series(group.label, group.css, group.slot, ())
