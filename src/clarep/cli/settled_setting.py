"""The t and k of a set whose command names none: stored ones, or found on its own images."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarep.clarid.clarid_config import (
    ClaridConfig,
    find_stored,
    is_auto,
    measured_otherwise,
    with_found,
)
from clarep.cli.terminal import note, warn
from clarep.data.labelled import LabelledImages
from clarep.engine.progress import announce
from clarep.engine.tensors import weights_hash
from clarep.report.quality import student_judge
from clarep.select.auto_setting import auto_setting
from clarep.select.clarep_measures import judge_knows
from clarep.students.student import Student
from clarep.students.student_files import load_judge
from clarep.teachers.teacher import Teacher


def settled_on(
    config: ClaridConfig,
    teacher: Teacher,
    data: LabelledImages,
    chosen: NDArray[np.int64],
    *,
    folder: Path,
    described: Mapping[str, Any],
    classifier: Student | None,
    seed: int,
) -> tuple[ClaridConfig, dict[str, Any]]:
    """Return the setting with a t and k that are to be found, and what is noted of them.

    Says on stderr which it took, and why. Arguments as for `auto_setting`.
    """
    if not is_auto(config):
        return config, {}
    found = stored = find_stored(teacher, config)
    if found is None:
        announce(
            "identify: t and k are to be found: reading the class from latents of a few images"
        )
        judge = classifier or (load_judge() if judge_knows(teacher, data) else None)
        by = {} if judge is None else {"judge_sha256": weights_hash(judge)["sha256"]}
        found = auto_setting(
            teacher,
            data,
            config,
            folder=folder,
            among=chosen,
            judge=judge and student_judge(judge),
            described={**described, **by},
            seed=seed,
        )
    setting = with_found(config, found)
    whose = "on your images" if stored is None else f"for this teacher, by `{found.by}`"
    said = f"t = {setting.t}, k = {setting.k}, measured {whose}: {found.reason}"
    if stored is not None and (otherwise := measured_otherwise(setting)):
        said += f"; {otherwise}"
    (note if found.stands else warn)(said)
    return setting, {"setting": asdict(found) | {"t": setting.t, "k": setting.k}}
