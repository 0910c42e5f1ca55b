"""The audit of a study: what it follows from, and how it is made."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clarep.audit.audit import Audit
from clarep.audit.audit_config import PARTS, AuditConfig, Part, setting_of
from clarep.audit.audit_run import audit_steps
from clarep.audit.shown_images import read_shown
from clarep.engine.artefacts import Progressed
from clarep.engine.identity import address
from clarep.errors import UserError
from clarep.study.canonical_jobs import TeacherJob


@dataclass(frozen=True, eq=False)
class AuditJob(TeacherJob):
    """What a teacher says of the training images: one for all methods that read it."""

    config: AuditConfig  # what is asked
    unit = "denoisings"
    kind = "audit"
    name = "of the training images"

    @cached_property
    def address(self) -> str:
        """What stands for its content."""
        return self.address_of(PARTS)

    def address_of(self, parts: Collection[Part]) -> str:
        """Return what stands for the content of some parts of it."""
        return address(
            {
                "teacher_sha256": self.teacher.fingerprint,
                "data_sha256": self.data.sha256(),
                "audit": setting_of(self.config, parts),
            }
        )

    @property
    def folder(self) -> Path:
        """Where it is, or will be."""
        return self.store / f"audit-{self.address}"

    def is_done(self) -> bool:
        """Tell whether the folder holds the whole audit, undamaged, with its pictures."""
        try:
            found = Audit.load(self.folder)
            stored = found.manifest["config"]
            content = {key: stored[key] for key in ("teacher_sha256", "data_sha256", "audit")}
            return address(content) == self.address and read_shown(found) is not None
        except (UserError, KeyError):
            return False

    def build(self) -> Iterator[Progressed]:
        """Make it, yielding after each part."""
        yield from audit_steps(
            self.teacher, self.data, self.folder, self.config, described=self.described()
        )
