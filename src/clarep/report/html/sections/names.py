"""Names of the classes, from whichever artefact has them."""

from pathlib import Path

from clarep.engine.artefacts import parse_json
from clarep.engine.tensors import read_tensors
from clarep.errors import UserError
from clarep.report.html.material import Material
from clarep.students.student_files import student_path


def names_of(material: Material, count: int) -> list[str]:
    """Return at least `count` class names: those measured, a student's, the set's, or numbers."""
    measured = [run.evaluation.config.get("classes") for run in material.runs if run.evaluation]
    candidates = [*measured, *(_of_student(run.folder) for run in material.runs)]
    if material.canon is not None:
        candidates.append(material.canon.manifest["config"].get("class_names"))
    for names in candidates:
        if isinstance(names, list) and len(names) >= count:
            return [str(name) for name in names]
    return [f"class {i}" for i in range(count)]


def _of_student(run: Path) -> list[str] | None:
    """Return the class names in the metadata of a run's weights; None if they cannot be read."""
    try:
        _, metadata = read_tensors(student_path(run), "a student")
        names = parse_json(metadata["info"])["class_names"]
    except (UserError, ValueError, LookupError, TypeError):
        return None
    return names if isinstance(names, list) else None
