"""`clarep audit`: ask a teacher which images go against their class's cue."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from clarep.audit.audit import Audit as Found
from clarep.audit.audit_config import AuditConfig
from clarep.audit.audit_run import audit_steps
from clarep.cli.option_groups import DataGroup, Json, SkipBad, TeacherGroup, TeacherSpec
from clarep.cli.terminal import note, told
from clarep.data.labelled import LabelledImages, readable_indices
from clarep.data.load import DataConfig, load_data
from clarep.engine.bounds import Within
from clarep.engine.progress import announce, progress
from clarep.report.audit_table import audit_table, most_doubted, said_of
from clarep.select.class_match import matched_by_number, of_the_datas_classes
from clarep.teachers.options import TeacherOptions, recorded
from clarep.teachers.zoo import load_teacher, sources


@dataclass(frozen=True)
class Audit:
    """Ask a teacher, without masks or groups, which images go against their class's cue.

    A folder holds what it says, for methods of clarep distill that read it. Killed at any moment,
    the same command goes on and ends with the same bytes.
    """

    data: DataGroup = field(default_factory=DataConfig)
    audit: Annotated[AuditConfig, tyro.conf.arg(name="")] = field(default_factory=AuditConfig)
    teacher_options: TeacherGroup = field(default_factory=TeacherOptions)
    teacher: TeacherSpec = "backdrops"
    show: Annotated[int, Within(0)] = 10
    """Most doubted images to name."""
    skip_bad: SkipBad = False
    out: Path = Path("runs/audit")
    """Folder of the audit: manifest.json, errors.safetensors, and what else was asked for."""
    json: Json = False

    def run(self) -> None:
        """Ask, and print what the answers say."""
        teacher = load_teacher(self.teacher, self.teacher_options)
        data = told(load_data(self.data))
        teacher, chosen_by_name = of_the_datas_classes(teacher, data)
        note(chosen_by_name)
        note(matched_by_number(teacher, data, judged=True))
        chosen, bad = self._readable(data)
        described = sources(self.teacher, self.data, recorded(self.teacher_options))
        described |= ({"skipped": bad} if bad else {}) | data.noted()
        steps = audit_steps(teacher, data, self.out, self.audit, chosen, described=described)
        start = next(steps)
        announce(f"audit: {start.total - start.done} of {start.total} denoisings to do")
        with progress("audit", "denoisings", start.total, start.done) as advance:
            for step in steps:
                advance(step.new)
        self._print(Found.load(self.out), data, bad)

    def _readable(self, data: LabelledImages) -> tuple[Any, list[str]]:
        """Return the images that can be read, None for all of them, and why others cannot."""
        if not self.skip_bad:
            return None, []
        return readable_indices(data, np.arange(len(data)), skip_bad=True)

    def _print(self, found: Found, data: LabelledImages, bad: list[str]) -> None:
        doubted, cost = most_doubted(found, data.sources, self.show), found.manifest["cost"]
        if self.json:
            names = found.class_names
            classes = [
                asdict(row)
                | {"class": names[row.label], "sigma": sigma}
                | {"rival": None if row.rival is None else found.name_of(row.rival)}
                for level, sigma in enumerate(found.config.sigmas)
                for row in found.evidence().by_class(level)
            ]
            answer = {"images": len(found.index), "classes": classes, "most_doubted": doubted}
            answer |= {"cost": cost, "skipped": bad, "wrote": {"audit": str(self.out)}}
            print(json.dumps(answer, indent=2))
            return
        for entry in bad:
            print(f"skipped {entry}")
        print(audit_table(found))
        for image in doubted:
            print(said_of(image))
        print(
            f"{len(found.index)} images, {sum(cost['seconds'].values()):.0f} s, "
            f"{cost['denoiser_evaluations']} denoiser evaluations, "
            f"peak memory {cost['peak_memory_mb']} MiB"
        )
        print(f"audit in {self.out}")
