"""All that the page is made from: runs, their groups, the canonical set and its pictures."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clarep.audit.audit import Audit
from clarep.clarid.canonical_set import MANIFEST, CanonicalSet
from clarep.clarid.set_pictures import SetPictures, read_pictures
from clarep.errors import UserError
from clarep.report.html.blocks import Legend
from clarep.report.html.charts import swatch
from clarep.report.html.run_folders import Group, ReportRun, group_runs, read_runs
from clarep.robustness.measures import MEASURE_GROUPS, MEASURES, measure_of
from clarep.study.runs import groups_of

CANON = "canon"  # in a run's folder


@dataclass(frozen=True)
class ReportData:
    """All that was read."""

    runs: Sequence[ReportRun]
    groups: Sequence[Group]
    canon: CanonicalSet | None
    pictures: SetPictures | None
    canon_missing: tuple[str, ...] = ()
    """Why there is no canonical set, and what gives one."""
    pictures_missing: tuple[str, ...] = ()
    """Why there are no pictures of it, where there is one, and what gives them."""
    audit: Audit | None = None
    audit_missing: tuple[str, ...] = ()
    """Why there is no audit though a run has read one, and what gives it."""

    @property
    def measured(self) -> list[Group]:
        """The groups of which at least one run was evaluated."""
        return [group for group in self.groups if group.evaluations]

    @property
    def single(self) -> list[Group]:
        """The evaluated groups of one seed, whose intervals say nothing of other seeds."""
        return [group for group in self.measured if len(group.runs) == 1]

    @property
    def labels(self) -> list[str]:
        """What the evaluated groups are called."""
        return [group.label for group in self.measured]

    @property
    def legend(self) -> Legend:
        """The evaluated methods with their colours and markers."""
        return Legend([(swatch(group.css, group.slot), group.label) for group in self.measured])

    @property
    def set_classes(self) -> list[str]:
        """The class names of the canonical set's teacher, or numbers where it records none."""
        if self.canon is None:
            return []
        count = int(self.canon.label.max()) + 1
        return list(self.canon.manifest["config"].get("class_names") or map(str, range(count)))

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

    def class_names(self, count: int) -> list[str]:
        """Return at least `count` class names: those measured, the set's, or numbers."""
        candidates = [run.evaluation.config.get("classes") for run in self.runs if run.evaluation]
        for names in (*candidates, self.set_classes):
            if isinstance(names, list) and len(names) >= count:
                return [str(name) for name in names]
        return [f"class {i}" for i in range(count)]


def read_report_data(
    folders: Sequence[Path], canon: Path | None, audit: Path | None = None
) -> ReportData:
    """Read what is there of each run, of the set, `canon` or a run's own, and of the audit.

    Raises UserError as `read_runs`, and if `canon` is no whole canonical set or `audit` no audit.
    """
    runs = read_runs(folders)
    found, canon_missing = _read_canon(canon, folders)
    pictures, pictures_missing = None, ""
    if found is not None:
        try:
            pictures = read_pictures(found)
        except UserError as error:
            pictures_missing = f"Originals, reconstructions and the features before: {error}"
    no_canon, no_pictures = (
        tuple(filter(None, [text])) for text in (canon_missing, pictures_missing)
    )
    said, audit_missing = _read_audit(audit, runs)
    groups = group_runs(runs)
    return ReportData(runs, groups, found, pictures, no_canon, no_pictures, said, audit_missing)


def _read_audit(
    given: Path | None, runs: Sequence[ReportRun]
) -> tuple[Audit | None, tuple[str, ...]]:
    """Return the audit, or why it is missing though a run has read one.

    It is the one given, or that of a study whose runs lie beside its store. Raises UserError if
    the one given is damaged.
    """
    if given is not None:
        return Audit.load(given), ()
    read = {run.folder: str(sha) for run in runs if (sha := run.config.get("audit_sha256"))}
    for folder, sha256 in read.items():
        for place in sorted((folder.resolve().parent.parent / "store").glob("audit-*")):
            with suppress(UserError):
                found = Audit.load(place)
                if found.sha256 == sha256:
                    return found, ()
    if not read:
        return None, ()
    return None, (
        "the audit that students have read was not given, so that what the teacher doubts is not "
        "shown: `clarep report RUN… --audit DIR` shows it",
    )


def _read_canon(given: Path | None, runs: Sequence[Path]) -> tuple[CanonicalSet | None, str]:
    """Return the set, or why it is missing; raises UserError if the one given is damaged."""
    if given is not None:
        inside = given / CANON
        is_above = not (given / MANIFEST).exists() and (inside / MANIFEST).exists()
        return CanonicalSet.load(inside if is_above else given), ""
    beside = [run / CANON for run in runs if (run / CANON / MANIFEST).exists()]
    if not beside:
        return None, (
            "no canonical set was given, so that its samples, spectrum and cost are not shown: "
            "`clarep report RUN… --canon DIR` shows them"
        )
    try:
        return CanonicalSet.load(beside[0]), ""
    except UserError as error:
        return None, f"the canonical set cannot be shown: {error}"
